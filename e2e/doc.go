// Package e2e tests the whole as a user meets it: the programs that "make build" put into bin/, from outside.
package e2e
