/** A checker that lets a bad history pass proves nothing, and one that finds fault with a good one is of no use. */
import { checkHistory, type History, type KeyCall, type StreamCall } from "@tidemark/testkit"
import { describe, expect, it } from "vitest"

const epoch = 1_800_000_000_000
const token = (millis: number, more = 0): number => (epoch + millis) * 1_000 + more

/** A call from one millisecond to another; by itself, where no end is given, it was never answered. */
const at = (start: number, end: number | undefined) => ({
  caller: "test",
  start,
  end: end ?? Number.POSITIVE_INFINITY,
  from: epoch + start,
  to: end === undefined ? Number.POSITIVE_INFINITY : epoch + end,
  isOptional: end === undefined
})

const onKey = (start: number, end: number | undefined, call: KeyCall): History[number] => ({
  ...at(start, end),
  service: "key",
  name: "k",
  call
})
const onStream = (start: number, end: number | undefined, call: StreamCall): History[number] => ({
  ...at(start, end),
  service: "stream",
  name: "s",
  call
})

const lease = 100
const claims = (claimId: string, answer?: Extract<KeyCall, { verb: "claim" }>["answer"]): KeyCall =>
  answer === undefined
    ? { verb: "claim", claimId, leaseMillis: lease }
    : { verb: "claim", claimId, leaseMillis: lease, answer }
const claimed = (start: number, more = 0) =>
  ({ _tag: "Claimed", token: token(start, more), until: epoch + start + lease }) as const
const completes = (claimId: string, answer?: Extract<KeyCall, { verb: "complete" }>["answer"]): KeyCall =>
  answer === undefined
    ? { verb: "complete", claimId, retentionMillis: 10_000 }
    : { verb: "complete", claimId, retentionMillis: 10_000, answer }
const done = { _tag: "Completed", result: undefined } as const
const releases = (claimId: string): KeyCall => ({ verb: "release", claimId, answer: "released" })

const grants = (claimId: string, start: number, ranges: ReadonlyArray<number>, more = 0): StreamCall => ({
  verb: "claim",
  claimId,
  ranges,
  leaseMillis: lease,
  answer: {
    granted: ranges,
    token: token(start, more),
    until: epoch + start + lease,
    completed: [],
    held: []
  }
})
const completesRanges = (
  claimId: string,
  completed: ReadonlyArray<number>,
  leaseLost: ReadonlyArray<number> = []
): StreamCall => ({
  verb: "complete",
  claimId,
  ranges: [...completed, ...leaseLost],
  answer: { completed, alreadyCompleted: [], leaseLost }
})

const annotates = (claimId: string, note: string, answer?: "noted" | "LeaseLost"): StreamCall =>
  answer === undefined ? { verb: "annotate", claimId, note } : { verb: "annotate", claimId, note, answer }

const good: Readonly<Record<string, History>> = {
  "of two that claim a key at once one gets it, whichever started first": [
    onKey(0, 10, claims("a", { _tag: "InFlight", until: epoch + 5 + lease, owner: "b" })),
    onKey(1, 9, claims("b", claimed(5)))
  ],
  "a completed key answers Completed": [
    onKey(0, 1, claims("a", claimed(0))),
    onKey(2, 5, completes("a", "Completed")),
    onKey(3, 6, claims("b", done)),
    onKey(7, 8, completes("a", "AlreadyCompleted"))
  ],
  "a completion that was not answered, and took effect": [
    onKey(0, 1, claims("a", claimed(0))),
    onKey(2, undefined, completes("a")),
    onKey(5, 6, claims("b", { _tag: "InFlight", until: epoch + lease, owner: "a" })),
    onKey(20, 21, claims("b2", done))
  ],
  "a completion that was not answered, and did not take effect": [
    onKey(0, 1, claims("a", claimed(0))),
    onKey(2, undefined, completes("a")),
    onKey(150, 151, claims("b", claimed(150))),
    onKey(152, 153, completes("a", "LeaseLost"))
  ],
  "a claim that was not answered, asked for again": [
    onKey(0, undefined, claims("a")),
    onKey(10, 11, claims("a", claimed(3))),
    onKey(12, 13, claims("b", { _tag: "InFlight", until: epoch + 3 + lease, owner: "a" })),
    onKey(14, 15, completes("a", "Completed"))
  ],
  "a claim that was not answered, and takes effect much later": [
    onKey(0, undefined, claims("a")),
    onKey(10, 11, claims("b", claimed(10))),
    onKey(12, 13, releases("b")),
    onKey(500, 501, claims("c", { _tag: "InFlight", until: epoch + 450 + lease, owner: "a" }))
  ],
  "a lease that ends during a claim may have been over": [
    onKey(0, 1, claims("a", claimed(0))),
    onKey(90, 110, claims("b", claimed(105)))
  ],
  "a late completion, when nobody took over": [
    onKey(0, 1, claims("a", claimed(0))),
    onKey(500, 501, completes("a", "Completed"))
  ],
  "a renewed claim": [
    onKey(0, 1, claims("a", claimed(0))),
    onKey(50, 51, { verb: "renew", claimId: "a", leaseMillis: lease, isAlone: true, answer: epoch + 150 }),
    onKey(120, 121, claims("b", { _tag: "InFlight", until: epoch + 150, owner: "a" })),
    onKey(160, 161, claims("c", claimed(160)))
  ],
  "claims of a stream that overlap": [
    onStream(0, 10, grants("a", 5, [0, 10])),
    onStream(1, 11, {
      verb: "claim",
      claimId: "b",
      ranges: [5, 15],
      leaseMillis: lease,
      answer: {
        granted: [10, 15],
        token: token(6),
        until: epoch + 6 + lease,
        completed: [],
        held: [{ ranges: [5, 10], until: epoch + 5 + lease, owner: "a" }]
      }
    }),
    onStream(20, 21, completesRanges("a", [0, 10])),
    onStream(22, 23, completesRanges("b", [10, 15])),
    onStream(24, 25, { verb: "progress", answer: { completed: [0, 15], watermark: 15 } })
  ],
  "a note that the next owner reads": [
    onStream(0, 1, grants("a", 0, [0, 10])),
    onStream(2, 5, annotates("a", "one", "noted")),
    onStream(3, 4, { verb: "progress", answer: { completed: [], watermark: 0 } }),
    onStream(150, 151, grants("b", 150, [5, 12])),
    onStream(152, 153, annotates("a", "two", "LeaseLost")),
    onStream(154, 155, { verb: "progress", answer: { completed: [], watermark: 0, note: "one" } })
  ],
  "a note that was not answered, and took effect": [
    onStream(0, 1, grants("a", 0, [0, 10])),
    onStream(2, undefined, annotates("a", "one")),
    onStream(5, 6, { verb: "progress", answer: { completed: [], watermark: 0, note: "one" } })
  ],
  "an expired claim of a stream that another overlaps": [
    onStream(0, 1, grants("a", 0, [0, 10])),
    onStream(150, 151, grants("b", 150, [9, 12])),
    onStream(152, 153, completesRanges("a", [], [0, 9])),
    onStream(154, 155, completesRanges("b", [9, 12]))
  ]
}

const bad: Readonly<Record<string, readonly [History, RegExp]>> = {
  "a note by a claim that was lost": [
    [
      onStream(0, 1, grants("a", 0, [0, 10])),
      onStream(150, 151, grants("b", 150, [5, 12])),
      onStream(152, 153, annotates("a", "late", "noted"))
    ],
    /annotate.*by claim a/s
  ],
  "a note that is gone": [
    [
      onStream(0, 1, grants("a", 0, [0, 10])),
      onStream(2, 3, annotates("a", "one", "noted")),
      onStream(4, 5, { verb: "progress", answer: { completed: [], watermark: 0 } })
    ],
    /note one.*progress -> completed nothing, note undefined/s
  ],
  "two live claims": [
    [onKey(0, 1, claims("a", claimed(0))), onKey(2, 3, claims("b", claimed(2)))],
    /held by claim a .*b .*Claimed/s
  ],
  "a token that falls back": [
    [
      onKey(0, 1, claims("a", claimed(0, 900))),
      onKey(2, 3, releases("a")),
      onKey(4, 5, claims("b", { ...claimed(4), token: token(0, 800) }))
    ],
    /free, last token .*claim b/s
  ],
  "a token that comes twice": [
    [
      onKey(0, 1, claims("a", claimed(0, 5_000))),
      onKey(2, 3, releases("a")),
      onKey(4, 5, claims("b", { ...claimed(4), token: token(0, 5_000) }))
    ],
    /claim b/
  ],
  "a completed key that is granted again": [
    [
      onKey(0, 1, claims("a", claimed(0))),
      onKey(2, 3, completes("a", "Completed")),
      onKey(4, 5, claims("b", claimed(4)))
    ],
    /completed .*claim b/s
  ],
  "a complete that is accepted after another took over": [
    [
      onKey(0, 1, claims("a", claimed(0))),
      onKey(150, 151, claims("b", claimed(150))),
      onKey(152, 153, completes("a", "Completed"))
    ],
    /held by claim b .*complete by claim a/s
  ],
  "a completion that is lost": [
    [
      onKey(0, 1, claims("a", claimed(0))),
      onKey(2, 3, completes("a", "Completed")),
      onKey(4, 5, { verb: "lookup", answer: { _tag: "Unknown" } })
    ],
    /completed .*lookup/s
  ],
  "a lease that is prolonged when asked for again": [
    [
      onKey(0, 1, claims("a", claimed(0))),
      onKey(50, 51, claims("a", { ...claimed(0), until: epoch + 50 + lease }))
    ],
    /claim a/
  ],
  "a lease that is too long": [[onKey(0, 1, claims("a", { ...claimed(0), until: epoch + 500 }))], /claim a/],
  "a live claim that is lost": [
    [
      onKey(0, 1, claims("a", claimed(0))),
      onKey(50, 51, { verb: "renew", claimId: "a", leaseMillis: lease, isAlone: true, answer: "LeaseLost" })
    ],
    /held by claim a .*renew/s
  ],
  "a stale answer: held by one that gave it back long ago": [
    [
      onKey(0, 1, claims("a", claimed(0))),
      onKey(2, 3, releases("a")),
      onKey(4, 5, claims("b", { _tag: "InFlight", until: epoch + lease, owner: "a" }))
    ],
    /free.*claim b/s
  ],
  "an offset that two live claims cover": [
    [onStream(0, 1, grants("a", 0, [0, 10])), onStream(2, 3, grants("b", 2, [9, 12]))],
    /claim a holds \[0,10\).*claim \[9,12\) by claim b/s
  ],
  "a stream's token that falls back": [
    [onStream(0, 1, grants("a", 0, [0, 1], 5_000)), onStream(2, 3, grants("b", 2, [1, 2]))],
    /last token .*claim b/s
  ],
  "a stream's completion that is lost": [
    [
      onStream(0, 1, grants("a", 0, [0, 10])),
      onStream(2, 3, completesRanges("a", [0, 10])),
      onStream(4, 5, { verb: "progress", answer: { completed: [0, 9], watermark: 9 } })
    ],
    /completed \[0,10\).*progress/s
  ],
  "a stream's complete that is accepted after another took over a part": [
    [
      onStream(0, 1, grants("a", 0, [0, 10])),
      onStream(150, 151, grants("b", 150, [9, 12])),
      onStream(152, 153, completesRanges("a", [0, 9]))
    ],
    /claim b holds .*complete \[0,9\) by claim a/s
  ],
  "an open-ended claim that is granted in part": [
    [
      onStream(0, 1, grants("a", 0, [0, 10])),
      onStream(2, 3, {
        verb: "claim",
        claimId: "b",
        ranges: [5, 2 ** 53],
        leaseMillis: lease,
        answer: {
          granted: [10, 2 ** 53],
          token: token(2),
          until: epoch + 2 + lease,
          completed: [],
          held: [{ ranges: [5, 10], until: epoch + lease, owner: "a" }]
        }
      })
    ],
    /claim b/
  ]
}

/** Calls that change nothing, on the same key: what is reported should not name them. */
const noise: History = Array.from({ length: 300 }, (_, index) =>
  onKey(-400 + index, -400 + index + 0.5, { verb: "lookup", answer: { _tag: "Unknown" } })
)

describe("good histories are explained", () => {
  it.each(Object.entries(good))("%s", (_, history) => {
    expect(checkHistory(history)).toEqual([])
    expect(checkHistory(history.toReversed())).toEqual([])
  })
})

describe("bad histories are found", () => {
  it.each(Object.entries(bad))("%s", (_, [history, message]) => {
    const [finding, ...more] = checkHistory(history)
    expect(finding?.message).toMatch(message)
    expect(more).toEqual([])
  })

  it.each(Object.entries(bad).filter(([, [history]]) => history[0].service === "key"))(
    "%s, also among many others, which the report leaves out",
    (_, [history, message]) => {
      const [finding] = checkHistory([...noise, ...history])
      expect(finding.message).toMatch(message)
      expect(finding.message.split("\n").length).toBeLessThanOrEqual(4)
    }
  )
})
