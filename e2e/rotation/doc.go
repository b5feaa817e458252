// Package rotation rotates whatever can be rotated while traffic flows through the real programs.
package rotation
