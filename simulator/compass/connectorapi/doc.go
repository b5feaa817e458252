// Package connectorapi is the server side of the Connector's GraphQL schema,
// generated from the same file as the client in graphql/connector. It knows
// types and execution only; what the fields answer is the simulator's.
package connectorapi

//go:generate go tool gqlgen generate --config gqlgen.yml
