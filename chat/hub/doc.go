// Package hub brings messages from the people who say them to the people in
// the same room.
//
// Its words:
//
//   - A session is one WebSocket connection that said hello. It has a bounded
//     queue of frames to write; whoever reads too slowly to keep it short is
//     sent away and comes back with its cursors.
//   - A room is a name that sessions joined. It exists here while somebody of
//     this process is in it; what was said in it is in the store.
//   - A member is one session in one room.
//   - Fan-out is handing the messages of a room to its members. It never
//     waits: for no session, and not for the store's writer either.
//   - A run is the messages that are handed over at once: one in an idle room,
//     as many as came in meanwhile in a busy one.
//
// Order and completeness come from the store's sequence numbers alone. A room
// knows the last number it handed out. What comes next it has in hand from its
// own process, or reads from the store when another process was told of
// first. So it does not matter in which order, or whether, hints arrive.
//
// Locks are taken in this order only: shard.mu, Room.mu, Room.in, queue.mu.
// Hub.mu, Session.mu and attendance.mu are held alone.
package hub
