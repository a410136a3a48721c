/**
 * Random sequences of commands on a store and on the pure model, compared answer by answer, and made as short as can
 * be where they differ (fast-check).
 */
import { Clock, Effect, type Scope } from "effect"
import * as fc from "fast-check"
import type { ContractBroken } from "../Check.ts"
import { broken } from "../internal/expect.ts"
import type { StoreTime } from "../Subject.ts"

/** How much a random check does. */
export interface RandomOptions {
  /** The same seed gives the same commands. Default: always the same one. */
  readonly seed?: number | undefined
  /**
   * How many sequences, of up to 150 commands each. Default: 60, some 4,500 commands; 10 where leases have to be
   * waited for.
   */
  readonly runs?: number | undefined
  /** How long to look for a shorter sequence where one fails, in milliseconds. Default: 30,000. */
  readonly shortenMillis?: number | undefined
}

export const defaultSeed = 20_260

const longestSequence = 150

/** A sequence can't be judged further: the machine was so slow that more than one answer would be right. */
class TooSlowToTell {
  readonly _tag = "TooSlowToTell"
}

/** Does not judge what came after the deadline: the store may have forgotten by then what the model still knows. */
export const unlessLate = <A, E>(
  deadline: number,
  work: Effect.Effect<A, E>
): Effect.Effect<A, E | TooSlowToTell> =>
  Effect.gen(function* () {
    const exit = yield* Effect.exit(work)
    if ((yield* Clock.currentTimeMillis) > deadline) return yield* Effect.fail(new TooSlowToTell())
    return yield* exit
  })

/** A request that is delivered once more, as it was: by a connection that resends, or that delays. */
export interface Again {
  readonly verb: "again"
  /** How many commands ago it was made, from 0. */
  readonly back: number
}

/** What sequences are made of, and where they run. */
export interface Sequences<Setting, Command extends { readonly verb: string }, World> {
  /** What a whole sequence has in common. */
  readonly setting: fc.Arbitrary<Setting>
  readonly command: fc.Arbitrary<Command>
  /** A world of its own for each sequence: names that nothing else uses, and an empty model. */
  readonly world: (setting: Setting) => Effect.Effect<World, unknown, Scope.Scope>
  /** Does one command on both, and fails where they differ. */
  readonly step: (world: World, command: Command) => Effect.Effect<void, unknown, Scope.Scope>
  readonly show: (setting: Setting, command: Command) => string
  /** Whether a command may be delivered once more. */
  readonly isRequest: (command: Command) => boolean
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : typeof error === "object" ? JSON.stringify(error) : String(error)

/**
 * Runs sequences until one differs; fails with the shortest one that was found, command by command, its seed and
 * how the answers differ.
 */
export const runSequences = <Setting, Command extends { readonly verb: string }, World>(
  { command, isRequest, setting, show, step, world }: Sequences<Setting, Command, World>,
  { runs = 60, seed = defaultSeed, shortenMillis = 30_000 }: RandomOptions
): Effect.Effect<void, ContractBroken> =>
  Effect.gen(function* () {
    const runPromise = Effect.runPromiseWith(yield* Effect.context<never>())
    const again: fc.Arbitrary<Again> = fc.record({
      verb: fc.constant("again"),
      back: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.nat(longestSequence))
    })
    let shortenedUntil = Number.POSITIVE_INFINITY
    let done: Array<Command> = []
    /** What of the last sequence that failed was done: of all that failed it is the shortest. */
    let failed: { readonly chosen: Setting; readonly done: ReadonlyArray<Command> } | undefined
    const one = (chosen: Setting, commands: ReadonlyArray<Command | Again>): Promise<void> =>
      runPromise(
        Effect.gen(function* () {
          // out of time: every shorter sequence passes, so that the shortest one so far is reported
          if (performance.now() > shortenedUntil) return
          const here = yield* world(chosen)
          done = []
          for (const next of resolved(commands, isRequest)) {
            done.push(next)
            yield* step(here, next)
          }
        }).pipe(
          Effect.scoped,
          Effect.catchIf(
            (error) => error instanceof TooSlowToTell,
            () => Effect.void
          ),
          Effect.onError(() =>
            Effect.sync(() => {
              shortenedUntil = Math.min(shortenedUntil, performance.now() + shortenMillis)
              failed = { chosen, done }
            })
          )
        )
      )
    const either = fc.oneof({ weight: 12, arbitrary: command }, { weight: 1, arbitrary: again })
    const commands = fc.array(either, { minLength: 1, maxLength: longestSequence, size: "max" })
    const details = yield* Effect.promise(() =>
      fc.check(fc.asyncProperty(setting, commands, one), { numRuns: runs, seed })
    )
    if (failed === undefined) return
    const { chosen, done: shortest } = failed
    return yield* broken(
      `the store answers the last of these commands otherwise than the model does (seed ${details.seed}, ` +
        `run ${details.numRuns}, shortened ${details.numShrinks} times):\n` +
        shortest.map((next, index) => `  ${index + 1}. ${show(chosen, next)}\n`).join("") +
        messageOf(details.errorInstance)
    )
  })

/** The commands that are done: for each that comes again, what it repeats. */
const resolved = <Command extends { readonly verb: string }>(
  commands: ReadonlyArray<Command | Again>,
  isRequest: (command: Command) => boolean
): ReadonlyArray<Command> => {
  const requests: Array<Command> = []
  return commands.flatMap((command) => {
    if (isAgain(command))
      return requests.length === 0 ? [] : [requests[Math.max(0, requests.length - 1 - command.back)]]
    if (isRequest(command)) requests.push(command)
    return [command]
  })
}

const isAgain = (command: { readonly verb: string }): command is Again => command.verb === "again"

/** The instants of one call, for comparing what the store says of its time with what the model does. */
export interface Span {
  readonly from: number
  readonly to: number
}

/** Does the call; answers its answer and when it was made. */
export const spanned = <A, E>(call: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const from = yield* Clock.currentTimeMillis
    const answer = yield* call
    return { answer, span: { from, to: yield* Clock.currentTimeMillis } }
  })

/**
 * Instants of the store beside those of the model, which has a call at its beginning. What one call began another may
 * tell of: on a machine that is busy they may differ by as much as the longest call took.
 */
export class NearInstants {
  private readonly toleranceMillis: number
  private longestMillis = 0

  constructor({ toleranceMillis }: StoreTime) {
    this.toleranceMillis = toleranceMillis
  }

  /** A call that began something whose end other calls may tell. */
  note({ from, to }: Span): void {
    this.longestMillis = Math.max(this.longestMillis, to - from)
  }

  /** The model's instant where the store's is as near as their clocks allow; else the store's, so that they differ. */
  near({ from, to }: Span, found: number | undefined, expected: number | undefined): number | undefined {
    this.note({ from, to })
    return found !== undefined &&
      expected !== undefined &&
      Math.abs(found - expected) <= this.toleranceMillis + this.longestMillis
      ? expected
      : found
  }
}

/** Tokens of the store beside those of the model: not the same numbers, but in the same relation. */
export class TokenRelation {
  private readonly byModel = new Map<number, number>()
  private last = 0

  /** The model's token where the store's stands in the same relation to all earlier ones; else the store's. */
  relate(found: number | undefined, expected: number | undefined): number | undefined {
    if (found === undefined || expected === undefined) return found
    const known = this.byModel.get(expected)
    if (known !== undefined) return found === known ? expected : found
    if (!Number.isSafeInteger(found) || found <= this.last) return found
    this.last = found
    this.byModel.set(expected, found)
    return expected
  }
}
