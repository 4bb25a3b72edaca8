package bus

// Encode and Parse let the fuzz target reach the format.
var (
	Encode = encode
	Parse  = parse
)
