// Command program is what the tests pack: small, with a module besides the standard library.
package main

import (
	"fmt"

	"k8s.io/utils/ptr"
)

func main() { fmt.Println(*ptr.To("it runs")) }
