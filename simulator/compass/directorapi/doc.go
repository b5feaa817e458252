// Package directorapi is the server side of the Director's GraphQL schema,
// generated from the same file as the client in graphql/director. It knows
// types, scalars and execution only; what the fields answer is the
// simulator's.
package directorapi

//go:generate go tool gqlgen generate --config gqlgen.yml
