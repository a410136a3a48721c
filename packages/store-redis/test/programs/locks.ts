/**
 * A process with locks. It tells when it is ready, and does what it is told: `hold` a lock until it is killed or told to
 * let go, or `contend` for locks, which it enters again and again.
 */
import { Lock } from "@tidemark/core"
import { Deferred, Effect } from "effect"
import { Redis } from "ioredis"
import { RedisStore } from "../../src/index.ts"

/** What the process is told. */
export type Order =
  | { readonly what: "hold"; readonly name: string; readonly leaseMillis: number }
  | { readonly what: "let go" }
  | {
      readonly what: "contend"
      readonly names: ReadonlyArray<string>
      readonly tasks: number
      readonly rounds: number
    }

/** What it tells. */
export type Report =
  | { readonly what: "ready" }
  | { readonly what: "held"; readonly token: number }
  | { readonly what: "contended"; readonly entries: number; readonly broken: ReadonlyArray<string> }

const [url, prefix] = process.argv.slice(2) as [string, string]
const report = (message: Report): void => {
  process.send?.(message)
}

const client = new Redis(url, { replyMapping: "legacy" })

/** A witness that all processes share: who is inside of a lock, and the greatest token that entered. */
const enter = async (name: string, token: number): Promise<string | undefined> => {
  const [[, inside], [, last]] = (await client
    .pipeline()
    .incr(`${prefix}:inside:${name}`)
    .getset(`${prefix}:last:${name}`, token)
    .exec()) as [[null, number], [null, string | null]]
  if (inside !== 1) return `${inside} were inside of ${name} at once`
  return Number(last ?? 0) < token ? undefined : `the token ${token} of ${name} came after ${last}`
}

const contend = (
  lock: Lock["Service"],
  { names, rounds, tasks }: Extract<Order, { readonly what: "contend" }>
) =>
  Effect.gen(function* () {
    const broken: Array<string> = []
    let entries = 0
    const once = (name: string) =>
      lock.withLock(name, { lease: "30 seconds" })(({ token }) =>
        Effect.promise(async () => {
          const wrong = await enter(name, token)
          if (wrong !== undefined) broken.push(wrong)
          await client.decr(`${prefix}:inside:${name}`)
          entries += 1
        })
      )
    yield* Effect.forEach(
      Array.from({ length: tasks }, (_, task) => task),
      (task) =>
        Effect.forEach(
          Array.from({ length: rounds }, (_, round) => names[(task + round) % names.length] as string),
          once,
          { discard: true }
        ),
      { concurrency: "unbounded", discard: true }
    )
    report({ what: "contended", entries, broken })
  })

const program = Effect.gen(function* () {
  const lock = yield* Lock
  let letGo = yield* Deferred.make<void>()
  const run = Effect.runForkWith(yield* Effect.context<never>())
  process.on("message", (order: Order) => {
    if (order.what === "contend") run(contend(lock, order))
    else if (order.what === "let go") run(Deferred.succeed(letGo, undefined))
    else
      run(
        Effect.gen(function* () {
          letGo = yield* Deferred.make<void>()
          yield* lock.withLock(order.name, { lease: order.leaseMillis })(({ token }) =>
            Effect.andThen(
              Effect.sync(() => report({ what: "held", token })),
              Deferred.await(letGo)
            )
          )
        })
      )
  })
  report({ what: "ready" })
  return yield* Effect.never
})

await Effect.runPromise(Effect.provide(program, RedisStore.layer({ url, prefix })))
