// Package plan computes what has to be done so that the cluster holds what Director says: New is a pure function of a
// snapshot and of what the cluster holds, and its result can be printed.
//
// It owns names, the mapping of fields, who owns which Secret, and the rule by which Applications are deleted. It refuses to
// know how the cluster is read and written, and how Compass is.
package plan
