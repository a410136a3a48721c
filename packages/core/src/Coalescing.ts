/**
 * Gathers calls that come while another is under way into one: the group commit of databases, for stores whose round
 * trip or commit costs much more than an item. A lone caller waits for nobody.
 *
 * Source of the idea: DeWitt et al., "Implementation Techniques for Main Memory Database Systems" (1984), group
 * commit; as in it, the busier the store, the larger the groups.
 */
import { Effect, Exit, type Scope } from "effect"

export interface CoalescingOptions<Request, Answer, E> {
  /**
   * Does what is asked, together; an exit for each request, in order. Where it fails as a whole, each request
   * fails so.
   */
  readonly run: (requests: ReadonlyArray<Request>) => Effect.Effect<ReadonlyArray<Exit.Exit<Answer, E>>, E>
  /** How many items a request has, against `maxItems`. Default: 1. */
  readonly sizeOf?: (request: Request) => number
  /** At most so many items in a group; a request that has more goes alone. */
  readonly maxItems: number
  /** How many groups may be under way at a time. Default: 1. */
  readonly concurrency?: number
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

interface Waiting<Request, Answer, E> {
  readonly request: Request
  readonly lane: Lane<Request, Answer, E>
  readonly settle: (exit: Exit.Exit<Answer, E>) => void
  /** By the monotonic clock, in milliseconds; 0 where patience has no end. */
  readonly since: number
}

interface Lane<Request, Answer, E> {
  readonly name: string
  queue: Array<Waiting<Request, Answer, E>>
  underWay: number
  turnEnds: boolean
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
    const { run, sizeOf = () => 1, maxItems, concurrency = 1, after, laneOf, patience } = options
    const context = yield* Effect.context<never>()
    const fork = Effect.runForkWith(context)
    const lanes = new Map<string, Lane<Request, Answer, E>>()
    const underWay = new Set<ReturnType<typeof startGroup>>()
    let closed = false

    const nextGroup = (lane: Lane<Request, Answer, E>): ReadonlyArray<Waiting<Request, Answer, E>> => {
      const { queue } = lane
      let size = 0
      let count = 0
      while (count < queue.length) {
        size += sizeOf(queue[count].request)
        if (count > 0 && size > maxItems) break
        count += 1
      }
      lane.queue = queue.slice(count)
      return queue.slice(0, count)
    }

    const startGroup = (group: ReadonlyArray<Waiting<Request, Answer, E>>) =>
      fork(Effect.suspend(() => run(group.map(({ request }) => request))))

    const startGroups = (lane: Lane<Request, Answer, E>): void => {
      while (lane.queue.length > 0 && lane.underWay < concurrency && !closed && !lane.turnEnds) {
        const group = nextGroup(lane)
        const fiber = startGroup(group)
        lane.underWay += 1
        underWay.add(fiber)
        fiber.addObserver((exit) => {
          lane.underWay -= 1
          underWay.delete(fiber)
          // before they are answered, so that the next group does not wait for what they do with it
          if (after === "turn") startNext(lane)
          else startGroups(lane)
          forgetIfIdle(lane)
          for (let index = 0; index < group.length; index++) {
            open.delete(group[index])
            group[index].settle(Exit.isSuccess(exit) ? exit.value[index] : Exit.failCause(exit.cause))
          }
        })
      }
      forgetIfIdle(lane)
    }

    const forgetIfIdle = (lane: Lane<Request, Answer, E>): void => {
      const idle = lane.underWay === 0 && lane.queue.length === 0 && !lane.turnEnds
      if (idle && lanes.get(lane.name) === lane) lanes.delete(lane.name)
    }

    /** Calls without an answer, the oldest first; kept only where patience has an end. */
    const open = new Set<Waiting<Request, Answer, E>>()
    let timer: NodeJS.Timeout | undefined

    const watch = (waiting: Waiting<Request, Answer, E>, { millis }: Patience<Request, E>): void => {
      open.add(waiting)
      // one that lives on when all are answered, so that a call costs no timer; it keeps no process alive
      timer ??= setTimeout(losePatience, millis).unref()
    }

    /** Lets the calls fail whose patience has ended, and looks again when that of the next one does. */
    const losePatience = (): void => {
      timer = undefined
      if (patience === undefined) return
      const endedBefore = performance.now() - patience.millis
      for (const waiting of open) {
        if (waiting.since > endedBefore) {
          timer = setTimeout(losePatience, Math.ceil(waiting.since - endedBefore)).unref()
          return
        }
        leave(waiting)
        waiting.settle(Exit.fail(patience.onTimeout(waiting.request)))
      }
    }

    const leave = (waiting: Waiting<Request, Answer, E>): void => {
      open.delete(waiting)
      const { queue } = waiting.lane
      const at = queue.indexOf(waiting)
      if (at >= 0) queue.splice(at, 1)
    }

    const startNext = (lane: Lane<Request, Answer, E>): void => {
      if (after === undefined) {
        startGroups(lane)
        return
      }
      if (lane.turnEnds || lane.queue.length === 0 || lane.underWay >= concurrency) return
      lane.turnEnds = true
      const start = (): void => {
        lane.turnEnds = false
        startGroups(lane)
      }
      // for a turn no tick and no microtask: callers who always come again would keep timers and sockets from theirs
      if (after === "turn") setImmediate(start)
      else process.nextTick(start)
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
        clearTimeout(timer)
        for (const lane of lanes.values()) {
          const unsent = lane.queue
          lane.queue = []
          for (const { settle } of unsent) settle(Exit.interrupt())
        }
        return Effect.forEach([...underWay], (fiber) => Effect.sync(() => fiber.interruptUnsafe()), {
          discard: true
        })
      })
    )

    return (request) =>
      Effect.callback<Answer, E>((resume) => {
        if (closed) return resume(Effect.interrupt)
        const lane = laneFor(request)
        const since = patience === undefined ? 0 : performance.now()
        const waiting: Waiting<Request, Answer, E> = { request, lane, settle: resume, since }
        lane.queue.push(waiting)
        if (patience !== undefined) watch(waiting, patience)
        startNext(lane)
        return Effect.sync(() => leave(waiting))
      })
  })
