// Package chat is the chat server: rooms, messages that are never lost, and a
// page to talk on. It joins the packages below it and speaks HTTP.
//
// Its words:
//
//   - The listener is a unix socket, which a proxy in another container reaches
//     through a shared volume, or a TCP address.
//   - A client is a browser or program with an identity: a random token that it
//     keeps in a cookie. Others know it by its user, a hash of that token.
//   - An origin is where a page came from. Only pages of allowed origins may
//     open a session.
//   - Draining is what happens between SIGTERM and the exit: no session is
//     admitted any more, and all of them are closed in good order.
package chat
