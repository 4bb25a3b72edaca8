package hub

import "time"

// bucket is a token bucket: it fills at a rate, and holds so many at most.
type bucket struct {
	rate, most, tokens float64
	at                 time.Time
}

func newBucket(rate float64, burst int, now time.Time) bucket {
	return bucket{rate: rate, most: float64(burst), tokens: float64(burst), at: now}
}

// take takes one token, if there is one.
func (b *bucket) take(now time.Time) bool {
	b.tokens = min(b.most, b.tokens+b.rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
