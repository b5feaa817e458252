// Package sync brings what Director says into the cluster: one Application per external system, and one Secret per
// bundle for its credentials and one for its request parameters. It works in three steps that can be looked at one by
// one: the snapshot comes from package director, package plan computes from it and from what the cluster holds what is to be
// done, and package apply does it.
//
// It owns the reading of the cluster, what is remembered between syncs, and the repair of what others change in between. It
// refuses to know how Compass is reached, when the next sync is due, and how its result is shown on the CompassConnection.
package sync
