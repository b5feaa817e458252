//go:build !linux

package up

import "syscall"

// ownGroup keeps an interrupt from the terminal away from the programs, so that they end in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
