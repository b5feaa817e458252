package up

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// residentMiB is how much memory a process holds, in MiB, from /proc/PID/status (proc(5), VmRSS); 0 where the system
// does not tell.
func residentMiB(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			if err != nil {
				return 0
			}
			return kib / 1024
		}
	}
	return 0
}

// memory lists what each program holds, and the sum.
func (s *supervisor) memory() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := residentMiB(os.Getpid())
	parts := []string{fmt.Sprintf("simulators %d", total)}
	for _, p := range s.processes {
		mib := residentMiB(p.cmd.Process.Pid)
		total += mib
		parts = append(parts, fmt.Sprintf("%s %d", p.name, mib))
	}
	return fmt.Sprintf("%d MiB (%s)", total, strings.Join(parts, ", "))
}
