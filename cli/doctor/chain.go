package doctor

import (
	"context"
	"fmt"
	"time"
)

// stepTimeout bounds one step: a name, a connection and its handshake, or a call with the second attempt that the gateway
// makes.
const stepTimeout = 45 * time.Second

// outcome is what a step found.
type outcome struct {
	state           State
	finding, remedy string
}

func fine(format string, args ...any) outcome {
	return outcome{state: OK, finding: fmt.Sprintf(format, args...)}
}

func wrong(remedy, format string, args ...any) outcome {
	return outcome{Wrong, fmt.Sprintf(format, args...), remedy}
}

// left is for what is left out on purpose.
func left(format string, args ...any) outcome {
	return outcome{state: Skipped, finding: fmt.Sprintf(format, args...)}
}

func unknown(remedy, format string, args ...any) outcome {
	return outcome{Unknown, fmt.Sprintf(format, args...), remedy}
}

// chain is steps of which later ones need earlier ones.
type chain struct {
	about string
	steps []Step
	// roots has, for each step that others cannot go on without, the name of the step that is to blame: its own, unless it
	// was skipped because of another. What was left out on purpose keeps nothing back.
	roots map[string]string
}

// do makes a step, unless one of those that it needs is not OK, or the time is over. A needed step that is not of this chain
// does not count.
func (c *chain) do(ctx context.Context, name string, needs []string, check func(context.Context) outcome) {
	for _, need := range needs {
		if root, broken := c.roots[need]; broken {
			c.add(name, outcome{state: Skipped, finding: "not looked at, because of " + root})
			c.blame(name, root)
			return
		}
	}
	const again = "run it again, for less at once, or with a longer --timeout"
	o := unknown(again, "the time was over before this was looked at")
	if ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		// What failed when the time of the whole was over may have failed because of that.
		if o = check(bounded); o.state == Wrong && ctx.Err() != nil {
			o = unknown(again, "the time was over while this was looked at; so far: %s", o.finding)
		}
	}
	c.add(name, o)
	if o.state == Wrong || o.state == Unknown {
		c.blame(name, name)
	}
}

func (c *chain) add(name string, o outcome) {
	c.steps = append(c.steps, Step{Name: name, About: c.about, State: o.state, Finding: o.finding, Remedy: o.remedy})
}

func (c *chain) blame(name, root string) {
	if c.roots == nil {
		c.roots = map[string]string{}
	}
	c.roots[name] = root
}
