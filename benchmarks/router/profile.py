"""Where the time of a call goes, by profile: what the page says of it, since a run measures sums alone."""

from __future__ import annotations

from typing import Final

TITLE: Final = "Where the time goes"

PROFILE: Final = """
By profiles, which a run of this page does not make anew. Processor time of the server, all threads, in us: 32 callers,
metrics, log and 1% of traces on, two cores (AMD Zen 4) that others were using. Misses get an answer of 16 words.

**A miss.** What the cache adds depends on the tiers that it has; rounds went through all rows in turn.

| miss | `Generate` | the same before | REST | the same before |
|---|---:|---:|---:|---:|
| bare grpc.aio or aiohttp, which look at nothing | 408 | - | 166 | - |
| memory | 1,069 | 1,106 | 930 | 922 |
| memory and disk | 1,409 | 1,579 | 876 | 1,005 |

Before is version af09a14, in the same five rounds. In another run `Generate` took 878 with the cache off, 1,060 with
memory and 1,369 with disk. That REST with memory takes longer than with disk is the noise of others.

A miss is 1,446 calls of functions with the cache off, 1,810 with memory, and 1,953 on the loop with disk as well. Of
the 364 that the memory adds, 164 are functions in C; 40 are the run that equal calls share and those who follow it, 28
the layers of the cache, 25 the key, 24 finding and keeping the answer. Over REST, by their own time and apart from
functions in C, the shares of a miss were, as of decision 41: cache 17%, aiohttp as a client 16%, as a server 13%,
layers and metrics 13%, the remote backend 10%, asyncio and threads 9%, REST's own 7%, the pool 6%.

Of what the disk adds, half is two threads. One reads, 85 us a miss, of which SQLite takes 5: the rest is waking it and
handing the interpreter to and fro, for calls come one in a turn of the loop, and seldom two wait together. One writes,
80 us; it took 180 until all that comes within 10 ms went into one transaction of a few statements. The other half is
on the loop: the task that writes, time limits, and waiting for the interpreter.

**A hit in memory.** In one process, with nothing else between, the handler of `Generate` takes some 50 us. Beside
gRPC's own code, which leaves little of it in the processor's caches, it takes two to three times that. By leaving out
one part at a time, with 8 callers:

| part | us |
|---|---:|
| finding the answer: plan, facts of the replicas, key, memory, invalidations (one system call) | 36 |
| the boundary of an RPC: its ID, frame, trailers, deadline and metadata, the call | 33 |
| what is told: trace and sampling, observation | 27 |
| the log line, written and rendered | 26 |
| the answer's bytes: of 415, some 230 are made anew | 25 |
| metrics: eight series | 13 |

**A stream** of 64 words, which the peer sends at once: 1,670 us over REST where a relay of bytes takes 281. aiohttp
goes through its parser anew for each chunk that a peer sends: 65 us for 64 of them. What one read brings is one token
([decision 41](decisions/041-what-comes-at-once-is-one-token.md)), so a word costs what it takes to find it in its event
and to write it into another: a third of a microsecond to write.

No place stands out any more. What is left is to do less per call in more places: to tell of calls in batches, in a
thread that has nothing but that in its cache; to compile a few modules; or to do it elsewhere than in Python.
"""
