/**
 * Gathers calls that come while another is under way into one: the group commit of databases, for stores whose round
 * trip or commit costs much more than an item. A lone caller waits for nobody.
 *
 * Source of the idea: DeWitt et al., "Implementation Techniques for Main Memory Database Systems" (1984), group
 * commit; as in it, the busier the store, the larger the groups.
 */
import { Effect, Exit, type Fiber, type Scope } from "effect"
import { Timed, TimeLimit } from "./TimeLimit.ts"

interface CommonOptions<Request, E> {
  /** How many items a request has, against `maxItems`. Default: 1. */
  readonly sizeOf?: (request: Request) => number
  /** At most so many items in a group; a request that has more goes alone. */
  readonly maxItems: number
  /** How many groups may be under way at a time. Default: 1. */
  readonly concurrency?: number
  /**
   * How many calls are worth a group of their own while another is under way: fewer wait for that one's answer, and
   * those who wait are divided among as many groups as may leave. Then callers and store work at the same time, where
   * both have as much to do. Default: one is, and all who wait leave together.
   */
  readonly worthwhile?: number
  /**
   * When a group leaves, so that calls made at one time go together though none is under way; neither costs a lone call
   * any time to speak of. `tick`: when the code that runs at this moment has come to its end. `turn`: when all who run
   * have had their turn; for a `run` that works without waiting, since nobody else could call while it does. Default:
   * the first call leaves at once.
   */
  readonly after?: "tick" | "turn"
  /**
   * What may go together: requests of different lanes never do, and don't wait for each other; `concurrency` counts
   * for each lane. For a store whose calls go to several places. Default: all go together.
   */
  readonly laneOf?: (request: Request) => string
  /**
   * How long a call may take in all, waiting for its group and in it, and how it fails then. A group that is under way
   * goes on. One timer serves all calls. Default: as long as it takes.
   */
  readonly patience?: Patience<Request, E>
}

interface Patience<Request, E> {
  readonly millis: number
  readonly onTimeout: (request: Request) => E
}

/** An exit for each request, in order; where it fails as a whole, each request fails so. */
export type GroupExit<Answer, E> = Exit.Exit<ReadonlyArray<Exit.Exit<Answer, E>>, E>

export interface RunOptions<Request, Answer, E> extends CommonOptions<Request, E> {
  /** Does what is asked, together. */
  readonly run: (requests: ReadonlyArray<Request>) => Effect.Effect<ReadonlyArray<Exit.Exit<Answer, E>>, E>
}

export interface StartOptions<Request, Answer, E> extends CommonOptions<Request, E> {
  /**
   * The same without a fiber: tells the answers once. Gives what stops it when the Scope closes: then it tells that it was
   * interrupted.
   */
  readonly start: (
    requests: ReadonlyArray<Request>,
    answered: (exit: GroupExit<Answer, E>) => void
  ) => () => void
}

export type CoalescingOptions<Request, Answer, E> =
  | RunOptions<Request, Answer, E>
  | StartOptions<Request, Answer, E>

class Waiting<Request, Answer, E> extends Timed {
  readonly request: Request
  readonly lane: Lane<Request, Answer, E>
  readonly settle: (exit: Exit.Exit<Answer, E>) => void

  constructor(
    request: Request,
    lane: Lane<Request, Answer, E>,
    settle: (exit: Exit.Exit<Answer, E>) => void,
    since: number
  ) {
    super(since)
    this.request = request
    this.lane = lane
    this.settle = settle
  }
}

interface Lane<Request, Answer, E> {
  readonly name: string
  queue: Array<Waiting<Request, Answer, E>>
  underWay: number
  turnEnds: boolean
}

/** On a fiber of its own. */
const starting =
  <Request, Answer, E>(
    run: RunOptions<Request, Answer, E>["run"],
    fork: (effect: ReturnType<typeof run>) => Fiber.Fiber<ReadonlyArray<Exit.Exit<Answer, E>>, E>
  ): StartOptions<Request, Answer, E>["start"] =>
  (requests, answered) => {
    const fiber = fork(Effect.suspend(() => run(requests)))
    fiber.addObserver(answered)
    return () => fiber.interruptUnsafe()
  }

/**
 * Makes a function for one request, whose calls are gathered: the first goes at once, those that come meanwhile go
 * together as soon as it has been answered. A call that is interrupted before its group has left is not sent; after
 * that it is carried out all the same, and its answer dropped. When the Scope closes, open calls are interrupted.
 *
 * @example
 * const ask = yield* Coalescing.make({ maxItems: 1_000, run: (ids: ReadonlyArray<string>) => lookUpAll(ids) })
 * const answer = yield* ask("order-4711")
 */
export const make = <Request, Answer, E>(
  options: CoalescingOptions<Request, Answer, E>
): Effect.Effect<(request: Request) => Effect.Effect<Answer, E>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { sizeOf, maxItems, concurrency = 1, worthwhile, after, laneOf, patience } = options
    const context = yield* Effect.context<never>()
    const start = "start" in options ? options.start : starting(options.run, Effect.runForkWith(context))
    const lanes = new Map<string, Lane<Request, Answer, E>>()
    const underWay = new Set<Group>()
    let closed = false

    /** How many of those who wait may leave now: all, or their part where others may leave beside them. */
    const mayLeave = ({ queue, underWay }: Lane<Request, Answer, E>): number => {
      const free = concurrency - underWay
      if (free === 0) return 0
      if (worthwhile === undefined) return queue.length
      if (underWay > 0 && queue.length < worthwhile) return 0
      return Math.max(worthwhile, Math.ceil(queue.length / free))
    }

    const nextGroup = (
      lane: Lane<Request, Answer, E>,
      most: number
    ): ReadonlyArray<Waiting<Request, Answer, E>> => {
      const { queue } = lane
      let size = 0
      let count = 0
      while (count < queue.length && count < most) {
        size += sizeOf === undefined ? 1 : sizeOf(queue[count].request)
        if (count > 0 && size > maxItems) break
        count += 1
      }
      if (count === queue.length) {
        lane.queue = []
        return queue
      }
      lane.queue = queue.slice(count)
      return queue.slice(0, count)
    }

    class Group {
      private readonly calls: ReadonlyArray<Waiting<Request, Answer, E>>
      private readonly lane: Lane<Request, Answer, E>
      stop: () => void = () => {}

      constructor(calls: ReadonlyArray<Waiting<Request, Answer, E>>, lane: Lane<Request, Answer, E>) {
        this.calls = calls
        this.lane = lane
      }

      leave(): void {
        this.lane.underWay += 1
        underWay.add(this)
        const requests = this.calls.map(({ request }) => request)
        this.stop = start(requests, (exit) => this.answered(exit))
      }

      private answered(exit: GroupExit<Answer, E>): void {
        const { calls, lane } = this
        lane.underWay -= 1
        underWay.delete(this)
        // before they are answered, so that the next group does not wait for what they do with it
        if (after === "turn") startNext(lane)
        else startGroups(lane)
        forgetIfIdle(lane)
        for (let index = 0; index < calls.length; index++) {
          limit?.forget(calls[index])
          calls[index].settle(Exit.isSuccess(exit) ? exit.value[index] : Exit.failCause(exit.cause))
        }
      }
    }

    const startGroups = (lane: Lane<Request, Answer, E>): void => {
      while (lane.queue.length > 0 && !closed && !lane.turnEnds) {
        const most = mayLeave(lane)
        if (most === 0) break
        new Group(nextGroup(lane, most), lane).leave()
      }
      forgetIfIdle(lane)
    }

    const forgetIfIdle = (lane: Lane<Request, Answer, E>): void => {
      const idle = lane.underWay === 0 && lane.queue.length === 0 && !lane.turnEnds
      if (idle && lanes.get(lane.name) === lane) lanes.delete(lane.name)
    }

    const limit =
      patience === undefined
        ? undefined
        : new TimeLimit<Waiting<Request, Answer, E>>(patience.millis, (waiting) => {
            leave(waiting)
            waiting.settle(Exit.fail(patience.onTimeout(waiting.request)))
          })

    const leave = (waiting: Waiting<Request, Answer, E>): void => {
      limit?.forget(waiting)
      const { queue } = waiting.lane
      const at = queue.indexOf(waiting)
      if (at >= 0) queue.splice(at, 1)
    }

    const startNext = (lane: Lane<Request, Answer, E>): void => {
      if (after === undefined) {
        startGroups(lane)
        return
      }
      if (lane.turnEnds || lane.queue.length === 0 || mayLeave(lane) === 0) return
      lane.turnEnds = true
      const turn = (): void => {
        lane.turnEnds = false
        startGroups(lane)
      }
      // for a turn no tick and no microtask: callers who always come again would keep timers and sockets from theirs
      if (after === "turn") setImmediate(turn)
      else process.nextTick(turn)
    }

    const laneFor = (request: Request): Lane<Request, Answer, E> => {
      const name = laneOf === undefined ? "" : laneOf(request)
      let lane = lanes.get(name)
      if (lane === undefined) {
        lane = { name, queue: [], underWay: 0, turnEnds: false }
        lanes.set(name, lane)
      }
      return lane
    }

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        closed = true
        limit?.close()
        for (const lane of lanes.values()) {
          const unsent = lane.queue
          lane.queue = []
          for (const { settle } of unsent) settle(Exit.interrupt())
        }
        return Effect.forEach([...underWay], (group) => Effect.sync(() => group.stop()), { discard: true })
      })
    )

    return (request) =>
      Effect.callback<Answer, E>((resume) => {
        if (closed) return resume(Effect.interrupt)
        const lane = laneFor(request)
        const since = limit === undefined ? 0 : performance.now()
        const waiting = new Waiting<Request, Answer, E>(request, lane, resume, since)
        lane.queue.push(waiting)
        limit?.watch(waiting)
        startNext(lane)
        return Effect.sync(() => leave(waiting))
      })
  })
