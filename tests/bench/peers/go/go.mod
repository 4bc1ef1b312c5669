module bench/peer

go 1.24.0

require (
	github.com/Yiling-J/theine-go v0.6.3
	github.com/maypok86/otter/v2 v2.4.0
)

require (
	github.com/klauspost/cpuid/v2 v2.0.9 // indirect
	github.com/zeebo/xxh3 v1.0.2 // indirect
	golang.org/x/sys v0.8.0 // indirect
)
