package chat

// BreakStore closes the data under the server's feet.
func (s *Server) BreakStore() error { return s.store.Close() }
