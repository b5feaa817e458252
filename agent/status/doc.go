// Package status owns how the agent tells people and machines what it found: the status of the CompassConnection with its
// conditions, the events about it, and the metrics. It decides nothing about Compass, and calls it never.
package status
