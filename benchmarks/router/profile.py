"""Where the time of a call goes, by profile: what the page says of it, since a run measures sums alone."""

from __future__ import annotations

from typing import Final

TITLE: Final = "Where the time goes"

PROFILE: Final = """
By profiles, which a run of this page does not make anew. Processor time of the server, all threads, in us: 32 callers,
metrics, log and 1% of traces on, two cores (AMD Zen 4). Misses get an answer of 16 words.

**A miss.** What the cache adds depends on the tiers that it has; rounds went through all rows in turn. Before is
version 590f6b4.

| miss | `Generate` | the same before | REST | the same before |
|---|---:|---:|---:|---:|
| bare grpc.aio or aiohttp, which look at nothing | 497 | - | 128 | - |
| cache off | 699 | 950 | 411 | 664 |
| memory | 903 | 1,127 | 541 | 805 |
| memory and disk | 975 | 1,616 | 622 | 1,021 |

By samples of all threads on a busy machine (py-spy, 875 us in all) 354 us of a `Generate` with memory are gRPC, uvloop
and the kernel under the loop, with no Python above them, and 79 are gRPC's own thread. The kernel's part is the
framework's: bare gRPC writes 7.6 times, reads 3.5 times and waits for a lock 5.8 times; here it is 8.1, 4.1 and 8.3.
The rest lies thin: 29 to write to the peer and wait for it, 22 aiohttp's parser, 16 observing, 12 reading the request,
11 reading events, 10 the run that equal calls share, and less than 10 for each place else.

Below the cache, by itself, the remote backend takes 130 us; 48 of them are aiohttp's connector, protocol and parser
([decision 49](decisions/049-a-peer-is-asked-without-a-session.md)). Of what the disk adds, 52 us are the thread that
writes, where SQLite takes 37; 25 are on the loop, and 3 to 7 the thread that reads: a busy process knows what the disk
lacks ([decision 48](decisions/048-a-busy-process-knows-what-the-disk-lacks.md)). Over REST, aiohttp's server and all
that is done for HTTP and JSON take 80 us by themselves, 35 of them for an echo
([decision 50](decisions/050-rest-reads-the-common-body-in-one-step.md)).

**A hit in memory** over gRPC is some 1,900 steps of the interpreter, beside gRPC's own code, which leaves little of
them in the processor's caches. By leaving out one part at a time, with 8 callers: the log line takes 17 to 21 us, 9 of
them on the loop; observation 13; trace and sampling 10; metrics 7. Of the steps, 350 are for those, 200 write the
answer's bytes, 184 make its route, and 150 ask whether all that was found before still holds
([decision 47](decisions/047-what-a-hit-works-out-anew.md)). Over REST a hit takes 68 us by itself, twice an echo.

**A hit on disk** is some 7,800 steps: a run that equal calls share, as for a miss, and a thread that is handed the
interpreter and gives it back. Answers that are read often are in memory.

**A stream** of 64 words that the peer sends at once takes 740 us over REST, 1,086 before, and a relay of bytes 307.
aiohttp goes through its parser anew for each chunk that a peer sends. What one read brings is one token
([decision 41](decisions/041-what-comes-at-once-is-one-token.md)). Word by word, REST by itself takes some 4 us a word.
An open stream holds 11 KB over gRPC beyond what gRPC holds for it, two thirds in the layers and the cache's run, and 18
KB over REST beyond what aiohttp does.

**Many calls.** Of a million misses (`--cases footprint --over grpc --contenders ours --rounds 1 --calls 1000000
--calls-seconds 3600`) the server held 112 MB at first, 184 after a hundred thousand, when its memory was full of
answers, and between 188 and 193 from four hundred thousand to the end.

No place stands out any more. Compiling brings nothing: the interpreter's loop is 18% of a miss
([decision 52](decisions/052-compiled-modules-are-no-faster.md)). What is left is to do less per call in more places, or
to do it elsewhere than in Python.
"""
