package up

import "syscall"

// ownGroup keeps an interrupt from the terminal away from the programs, so that they end in order; and has the kernel
// end them if we are killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
