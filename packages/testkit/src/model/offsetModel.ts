/** Random sequences on an `OffsetStore`, against the rules of the protocol themselves. */
import { OffsetRanges, type OffsetStoreService, Protocol } from "@tidemark/core"
import { Clock, Effect, type Scope } from "effect"
import type { Check } from "../Check.ts"
import { terms } from "../checks/shared.ts"
import { same } from "../internal/expect.ts"
import type { Subject } from "../Subject.ts"
import { base, type OffsetCommand, offsetCommand, type Placed, placed } from "./offsetCommands.ts"
import {
  NearInstants,
  type RandomOptions,
  runSequences,
  type Span,
  spanned,
  TokenRelation,
  unlessLate
} from "./sequences.ts"

/** One stream: as the store knows it, as the rules have it, and how their tokens correspond. */
interface Pair {
  readonly name: string
  model: Protocol.StreamState
  readonly tokens: TokenRelation
  /** Since the model has known the stream: before, the last token is the store's own matter. */
  wasClaimed: boolean
}

interface World {
  readonly base: number
  readonly subject: Subject<OffsetStoreService>
  readonly instances: Array<OffsetStoreService>
  readonly streams: ReadonlyArray<Pair>
  readonly instants: NearInstants
  readonly claimId: (id: number) => string
}

/** A lease that one can wait the end of where time can't be moved, in milliseconds. */
const briefMillis = 120

type Claimed = Protocol.OffsetClaimAnswer | "ClaimIdReused"

const plain = (
  answer: Claimed | undefined,
  token: (token: number | undefined) => number | undefined,
  until: (until: number | undefined, owner?: string) => number | undefined
): unknown => {
  if (answer === undefined || answer === "ClaimIdReused") return "ClaimIdReused"
  const byOwner = new Map<string, { readonly ranges: OffsetRanges.OffsetRanges; readonly until: unknown }>()
  for (const part of answer.held) {
    const known = byOwner.get(part.owner)?.ranges ?? OffsetRanges.empty
    byOwner.set(part.owner, {
      ranges: OffsetRanges.union(known, part.ranges),
      until: until(part.until, part.owner)
    })
  }
  return {
    granted: answer.granted,
    completed: answer.completed,
    held: [...byOwner].sort(([a], [b]) => (a < b ? -1 : 1)),
    token: token(answer.token),
    until: until(answer.until)
  }
}

const step = (world: World, command: Placed<OffsetCommand>): Effect.Effect<void, unknown, Scope.Scope> => {
  const { claimId, instances, streams, subject } = world
  const store = instances[command.at % instances.length]
  const ranges = (spread: Parameters<typeof placed>[0]) => placed(spread, world.base)
  const near = (span: Span, found: number | undefined, expected: number | undefined) =>
    world.instants.near(span, found, expected)

  const claim = (pair: Pair, id: string, asked: OffsetRanges.OffsetRanges, leaseMillis: number) =>
    Effect.gen(function* () {
      const call = store.claim(pair.name, asked, terms(id, leaseMillis))
      const { answer, span } = yield* spanned(
        Effect.catchTag(call, "ClaimIdReused", () => Effect.succeed("ClaimIdReused" as const))
      )
      const expected = pair.model.claim(asked, terms(id, leaseMillis), span.from)
      if (expected?.token !== undefined) pair.wasClaimed = true
      const untilOf = (owner: string | undefined): number | undefined =>
        owner === undefined ? expected?.until : expected?.held.find((part) => part.owner === owner)?.until
      yield* same(
        "claim",
        plain(
          answer,
          (token) => pair.tokens.relate(token, expected?.token),
          (until, owner) => near(span, until, untilOf(owner))
        ),
        plain(
          expected,
          (token) => token,
          (until) => until
        )
      )
      return answer === "ClaimIdReused" ? undefined : answer
    })

  const complete = (pair: Pair, id: string, done: OffsetRanges.OffsetRanges) =>
    Effect.gen(function* () {
      const { answer, span } = yield* spanned(store.complete({ stream: pair.name, claimId: id }, done))
      yield* same("complete", { ...answer }, { ...pair.model.complete(id, done, span.from) })
    })

  const renew = (
    claims: ReadonlyArray<{ readonly pair: Pair; readonly id: string; readonly leaseMillis: number }>
  ) =>
    Effect.gen(function* () {
      const { answer, span } = yield* spanned(
        store.renew(
          claims.map(({ id, leaseMillis, pair }) => ({ stream: pair.name, claimId: id, leaseMillis }))
        )
      )
      const expected = claims.map(({ id, leaseMillis, pair }) => pair.model.renew(id, leaseMillis, span.from))
      yield* same(
        "renew",
        answer.map((until, index) => near(span, until, expected[index])),
        expected
      )
    })

  const annotate = (
    notes: ReadonlyArray<{ readonly pair: Pair; readonly id: string; readonly note: string }>
  ) =>
    Effect.gen(function* () {
      const { answer, span } = yield* spanned(
        store.annotate(notes.map(({ id, note, pair }) => ({ stream: pair.name, claimId: id, note })))
      )
      const expected = notes.map(({ id, note, pair }) => pair.model.annotate(id, note, span.from))
      yield* same("annotate", answer, expected)
    })

  const progress = (pair: Pair) =>
    Effect.gen(function* () {
      const { answer, span } = yield* spanned(store.progress(pair.name))
      const expected = pair.model.progress(span.from)
      const sorted = (claims: ReadonlyArray<Protocol.LiveClaim>) =>
        claims.toSorted((a, b) => a.token - b.token)
      const expectedClaims = sorted(expected?.claims ?? [])
      yield* same(
        "progress",
        answer && {
          ...answer,
          lastToken: pair.wasClaimed ? pair.tokens.relate(answer.lastToken, expected?.lastToken) : undefined,
          claims: sorted(answer.claims).map((claim, index) => ({
            ...claim,
            token: pair.tokens.relate(claim.token, expectedClaims[index]?.token),
            until: near(span, claim.until, expectedClaims[index]?.until)
          }))
        },
        expected && {
          ...expected,
          lastToken: pair.wasClaimed ? expected.lastToken : undefined,
          claims: expectedClaims
        }
      )
    })

  const forgetModel = (pair: Pair): void => {
    pair.model = new Protocol.StreamState(pair.model.token)
    pair.wasClaimed = false
  }

  switch (command.verb) {
    case "claim":
      return Effect.asVoid(
        claim(streams[command.stream], claimId(command.id), ranges(command.ranges), command.lease)
      )
    case "complete":
      return complete(streams[command.stream], claimId(command.id), ranges(command.ranges))
    case "claimOffset": {
      const pair = streams[command.stream]
      const asked = terms(claimId(command.id), command.lease)
      const offset = world.base + command.offset
      return Effect.gen(function* () {
        const { answer, span } = yield* spanned(store.claimOffset(pair.name, offset, asked))
        const ranges = OffsetRanges.of(offset)
        const expected = Protocol.answerOfOne(pair.model.claim(ranges, asked, span.from))
        if (expected?._tag === "Claimed") pair.wasClaimed = true
        const token = expected?._tag === "Claimed" ? expected.token : undefined
        const until = expected === undefined || expected._tag === "Completed" ? undefined : expected.until
        yield* same(
          "claimOffset",
          answer && {
            ...answer,
            ...("token" in answer ? { token: pair.tokens.relate(answer.token, token) } : {}),
            ...("until" in answer ? { until: near(span, answer.until, until) } : {})
          },
          expected
        )
      })
    }
    case "completeOffset": {
      const { model, name } = streams[command.stream]
      const offset = world.base + command.offset
      return Effect.gen(function* () {
        const { answer, span } = yield* spanned(
          store.completeOffset({ stream: name, claimId: claimId(command.id) }, offset)
        )
        const expected = model.complete(claimId(command.id), OffsetRanges.of(offset), span.from)
        yield* same("completeOffset", answer, Protocol.completionOfOne(expected))
      })
    }
    case "release": {
      const { name, model } = streams[command.stream]
      const given = command.ranges && ranges(command.ranges)
      model.release(claimId(command.id), given)
      return store.release({ stream: name, claimId: claimId(command.id) }, given)
    }
    case "renew":
      return renew(
        command.claims.map(({ id, lease, stream }) => ({
          pair: streams[stream],
          id: claimId(id),
          leaseMillis: lease
        }))
      )
    case "annotate":
      return annotate(
        command.notes.map(({ id, note, stream }) => ({ pair: streams[stream], id: claimId(id), note }))
      )
    case "progress":
      return progress(streams[command.stream])
    case "isCompleted": {
      const { model, name } = streams[command.stream]
      const offset = world.base + command.offset
      return Effect.flatMap(store.isCompleted(name, offset), (answer) =>
        same("isCompleted", answer, model.isCompleted(offset))
      )
    }
    case "rewind": {
      const { model, name } = streams[command.stream]
      model.rewind(world.base + command.to)
      return store.rewind(name, world.base + command.to)
    }
    case "skip": {
      const { model, name } = streams[command.stream]
      model.skip(ranges(command.ranges))
      return store.skip(name, ranges(command.ranges))
    }
    case "forget": {
      const pair = streams[command.stream]
      return Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const wasKnown = pair.model.progress(now) !== undefined
        forgetModel(pair)
        yield* same("forget", yield* store.forget(pair.name), wasKnown)
      })
    }
    case "copy": {
      const [from, to] = [streams[command.from], streams[command.to]]
      return Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const source = from.model.progress(now)
        const occupied = source !== undefined && to.model.progress(now) !== undefined
        if (source !== undefined && !occupied) to.model.adopt(source)
        const refused = yield* Effect.matchEffect(store.copy(from.name, to.name), {
          onSuccess: () => Effect.succeed(false),
          onFailure: (error) =>
            error._tag === "StoreError" && error.reason === "NotEmpty"
              ? Effect.succeed(true)
              : Effect.fail(error)
        })
        yield* same("whether copy is refused as NotEmpty", refused, occupied)
        yield* progress(to)
      })
    }
    case "pass":
      return subject.time.pass(command.millis)
    case "restart":
      return Effect.gen(function* () {
        if (store.durable) instances[0] = yield* subject.restarted
      })
    case "expire":
      return Effect.gen(function* () {
        const pair = streams[command.stream]
        const id = claimId(command.id)
        const asked = ranges(command.ranges)
        const answer = yield* claim(pair, id, asked, briefMillis)
        if (answer?.until === undefined) return
        const { granted, until } = answer
        yield* subject.time.passTo(until)
        if (command.afterwards === "forgotten") yield* subject.time.pass(10 * briefMillis)
        const followUp: Effect.Effect<unknown, unknown> = {
          complete: complete(pair, id, asked),
          forgotten: complete(pair, id, asked),
          renew: renew([{ pair, id, leaseMillis: 10_000_000 }]),
          askAgain: claim(pair, id, asked, briefMillis),
          takeOver: claim(pair, `${id}-successor`, granted, 10_000_000),
          release: Effect.void
        }[command.afterwards]
        // it is settled now one way or another, so that its 10 leases can't run out unnoticed
        const settled = Effect.gen(function* () {
          yield* followUp
          yield* store.release({ stream: pair.name, claimId: id })
          pair.model.release(id)
        })
        return yield* command.afterwards === "forgotten"
          ? settled
          : unlessLate(until + 9 * briefMillis, settled)
      })
  }
}

const show = (base: number, { at, ...command }: Placed<OffsetCommand>): string => {
  const { verb, ...rest } = command
  const words = Object.entries(rest).map(([name, value]) =>
    name === "ranges" && value !== undefined
      ? `ranges ${placed(value as never, base)}`
      : `${name} ${JSON.stringify(name === "to" || name === "offset" ? base + (value as number) : value)}`
  )
  return `instance ${at}: ${verb} ${words.join(", ")}`
}

/**
 * Thousands of random commands on two streams, compared with `Protocol.StreamState` answer by answer: claims asked for
 * again, claim ids used again, overlapping and open-ended claims, offsets up to the highest, operators' acts, leases
 * that end, and for durable stores a second instance and restarts in between.
 */
export const offsetStoreModelCheck = (options: RandomOptions = {}): Check<OffsetStoreService> => ({
  invariant: 6,
  name: "answers any sequence of calls as the rules of the protocol do",
  run: (subject) =>
    Effect.gen(function* () {
      const instances = subject.store.durable ? [subject.store, yield* subject.another] : [subject.store]
      yield* runSequences(
        {
          setting: base,
          command: offsetCommand(subject.time.exact),
          world: (base) =>
            Effect.sync((): World => {
              const own = subject.name("c")
              return {
                base,
                subject,
                instances,
                streams: [0, 1].map(() => ({
                  name: subject.name("stream"),
                  model: new Protocol.StreamState(),
                  tokens: new TokenRelation(),
                  wasClaimed: false
                })),
                instants: new NearInstants(subject.time),
                claimId: (id) => `${own}-${id}`
              }
            }),
          step,
          show,
          isRequest: ({ verb }) => !["pass", "restart", "expire"].includes(verb)
        },
        { runs: subject.time.exact ? 60 : 10, ...options }
      )
    })
})
