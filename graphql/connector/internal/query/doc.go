// Package query holds the GraphQL operations of package connector and the code that genqlient makes from them.
package query

//go:generate go run github.com/Khan/genqlient genqlient.yaml
