"""Where the time of a call goes, by profile: what the page says of it, since a run measures sums alone."""

from __future__ import annotations

from typing import Final

TITLE: Final = "Where the time goes"

PROFILE: Final = """
By profiles, which a run of this page does not make anew. Processor time of the server, all threads, in us: 32 callers,
metrics, log and 1% of traces on, two cores (AMD Zen 4). Misses get an answer of 16 words.

**A miss.** What the cache adds depends on the tiers that it has; rounds went through all rows in turn, on a machine
that something else used too. Before is version 35d0221; the row of memory over gRPC is of another run.

| miss | `Generate` | the same before | REST | the same before |
|---|---:|---:|---:|---:|
| bare grpc.aio or aiohttp, which look at nothing | 464 | - | 146 | - |
| cache off | 617 | 716 | 270 | 391 |
| memory | 735 | 845 | 333 | 483 |
| memory and disk | 818 | 954 | 427 | 547 |

By samples of all threads on a busy machine (py-spy, at 35d0221, 875 us in all) 354 us of a `Generate` with memory are
gRPC, uvloop and the kernel under the loop, with no Python above them, and 79 are gRPC's own thread. The kernel's part
is the framework's: bare gRPC writes 7.6 times, reads 3.5 times and waits for a lock 5.8 times; here it was 8.1, 4.1 and
8.3. The rest lies thin. A REST miss made 1,566 calls of functions then, and makes some 950.

Below the cache, by itself, the remote backend takes 73 us; 15 of them are a write, a read and aiohttp's connector
([decision 53](decisions/053-answers-of-peers-are-read-by-llhttp-alone.md)). Of what the disk adds, some 30 us are the
thread that writes, where SQLite takes some 20, half of it for a page of the index of keys that each entry has to
itself; 13 are on the loop, and 2 to 3 the thread that reads: a busy process knows what the disk lacks
([decision 48](decisions/048-a-busy-process-knows-what-the-disk-lacks.md)). Over REST, aiohttp's server and all that is
done for HTTP and JSON take 40 us by themselves, system calls left out, 22 of them for an echo
([decision 57](decisions/057-plain-paths-pass-no-application.md)). Huge pages under the heap save 3 to 15%
([decision 58](decisions/058-the-heap-lies-in-huge-pages.md)).

**A hit in memory** over gRPC is some 1,700 steps of the interpreter, beside gRPC's own code, which leaves little of
them in the processor's caches: they take 20 us where nothing else runs between, and 130 here. By leaving out one part
at a time, with 8 callers, at an earlier version: the log line took 17 to 21 us, 9 of them on the loop; observation 13;
trace and sampling 10; metrics 7. Of the steps, some 350 are for those, 200 write the answer's bytes, 145 make its
route, and 150 ask whether all that was found before still holds
([decision 47](decisions/047-what-a-hit-works-out-anew.md)). Over REST a hit takes 25 us by itself, where an echo takes
22.

**A hit on disk** over gRPC is some 5,400 steps, where it was 8,500, and takes 550 us where it took 715: one look serves
all equal calls, no run is begun for it, and the thread that reads is woken for several at once
([decision 55](decisions/055-below-the-memory-one-look-for-all.md)). Answers that are read often are in memory.

**A stream** of 64 words that the peer sends at once: chunks cost next to nothing, and events of one read little more
than one of them. With the cache off it takes 327 us over REST, where it took 458
([decision 53](decisions/053-answers-of-peers-are-read-by-llhttp-alone.md)); with all tiers some 610, of which keeping
it is the most of the rest. What one read brings is one token
([decision 41](decisions/041-what-comes-at-once-is-one-token.md)). Word by word, REST by itself takes some 2 us a word.
An open stream holds some 4 KB over gRPC beyond what gRPC holds for it, and 5 KB over REST beyond what aiohttp does: the
frameworks by themselves hold 36 and 25.

**The first word** comes late where the server was idle before: steps that take 12 us in a loop take some 110 after a
millisecond of nothing. Over gRPC the framework adds 0.8 to 0.9 ms to the direct call by itself, and the message that a
stream begins with 0.16.

**Two workers** share their two cores with the load generator and the model, which streams 18 events an answer to ours
and sends the bare servers one piece. By answers a second times processor time, our two had 1.6 of the two cores over
gRPC and 1.5 over REST, where one had 1.0, and an answer cost 9 and 4% more. Fronts that were kept to one core each made
it worse ([decision 59](decisions/059-a-front-keeps-to-no-core.md)). The table of several workers was measured by a run
of that case alone, at 10e8977.

**Many calls.** Of a million misses, at f72add8 (`--cases footprint --over grpc --contenders ours --rounds 1
--calls 1000000 --calls-seconds 3600`) the server held 112 MB at first, 184 after a hundred thousand, when its memory
was full of answers, and between 188 and 193 from four hundred thousand to the end.

No place stands out any more. Compiling brings nothing: the interpreter's loop is 18% of a miss
([decision 52](decisions/052-compiled-modules-are-no-faster.md)). What is left is to do less per call in more places, or
to do it elsewhere than in Python.
"""
