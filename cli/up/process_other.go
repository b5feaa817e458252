//go:build !linux

package up

import "syscall"

// ownGroup keeps an interrupt from the terminal away from the programs, so that they end in order. If we are killed,
// the local cluster ends by itself, since its standard input closes; agent, gateway and validator do not on this system.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
