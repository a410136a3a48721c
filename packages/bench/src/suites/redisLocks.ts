/** Locks on Redis: ours beside the raw pair, redis-semaphore and redlock. */

import type { Lock } from "@tidemark/core"
import { RedisStore } from "@tidemark/store-redis"
import { startOwnRedis, uniqueName } from "@tidemark/test-servers"
import { Effect } from "effect"
import { Redis } from "ioredis"
import { Mutex } from "redis-semaphore"
import Redlock from "redlock"
import { type Contestant, contest, type Spread, spread, type Work } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { inFlight } from "../InFlight.ts"
import { connect } from "../RedisPeers.ts"
import { leaseMillis, openServices } from "../Subjects.ts"

const perSlice = 200
const tasks = 50
const turns = 40

type Names = ReadonlyArray<string>

/** Takes a lock and gives it back. */
type Turn = (name: string) => Promise<unknown>

const input = (slice: number): Names =>
  Array.from({ length: perSlice }, (_, index) => `lock-${slice}-${index}`)

const names = {
  raw: "SET NX, then compare and delete",
  semaphore: "redis-semaphore Mutex",
  redlock: "redlock",
  ours: "tidemark Lock"
}

const contended = {
  semaphore: "redis-semaphore Mutex, 50 tasks",
  ours: "tidemark Lock, 50 tasks",
  apart: "tidemark Lock, 50 tasks on 5 connections that don't know of each other"
}

/** How long each of 50 tasks waits for one lock, `turns` times; the 99th percentile, in milliseconds. */
const waits = async (turnOf: (task: number) => (name: string, onHeld: () => void) => Promise<unknown>) => {
  const name = uniqueName("contended")
  const waited: Array<number> = []
  await Promise.all(
    Array.from({ length: tasks }, async (_, task) => {
      const turn = turnOf(task)
      for (let count = 0; count < turns; count++) {
        const from = performance.now()
        await turn(name, () => waited.push(performance.now() - from))
      }
    })
  )
  waited.sort((a, b) => a - b)
  return waited[Math.floor(waited.length * 0.99)]
}

export const suite: Suite = {
  name: "redis-locks",
  about: "locks on Redis on the same machine: taken and given back",
  run: async (progress) => {
    await using redis = await startOwnRedis()
    const peers = connect(redis.url)
    const client = new Redis(redis.url)
    const redlock = new Redlock([client], { retryCount: 0 })
    const stores = await Promise.all(
      Array.from({ length: 5 }, () => openServices(RedisStore.layer({ url: redis.url, prefix: "bench" })))
    )
    const withLock = (index: number): Lock["Service"]["withLock"] => stores[index].lock.withLock

    const raw: Turn = (name) => peers.lockAndUnlock(name, "1")
    const semaphore: Turn = async (name) => {
      const mutex = new Mutex(client, name, { lockTimeout: leaseMillis })
      await mutex.acquire()
      await mutex.release()
    }
    const redlockTurn: Turn = async (name) => {
      const lock = await redlock.acquire([`redlock:${name}`], leaseMillis)
      await lock.release()
    }
    const ours: Turn = (name) => Effect.runPromise(withLock(0)(name, { lease: leaseMillis })(Effect.void))

    const contestants = (count: number): ReadonlyArray<Contestant<Names>> =>
      (
        [
          [names.raw, raw],
          [names.semaphore, semaphore],
          [names.redlock, redlockTurn],
          [names.ours, ours]
        ] as const
      ).map(([name, turn]) => ({
        name,
        start: (): Work<Names> => (locks) => inFlight(locks, count, turn),
        input
      }))
    const uncontended = async (count: number, atLeast: number): Promise<ReadonlyArray<Figure>> => {
      const label = count === 1 ? "one at a time" : `${count} at a time`
      const times = await contest({
        contestants: contestants(count),
        slices: 10,
        operationsPerSlice: perSlice,
        passes: 9,
        warmups: 1,
        onPass: (pass, of) => progress(`${label}, pass ${pass} of ${of}`)
      })
      return [
        ...Object.values(names).map(
          (name): Figure => ({ what: `${label}: ${name}`, unit: "ns per lock", measured: times.nanos(name) })
        ),
        {
          what: `${label}: ${names.ours}: rate against the raw pair's`,
          unit: "x",
          measured: times.ratio(names.raw, names.ours),
          target: { atLeast }
        }
      ]
    }
    const measuredWaits = async (): Promise<ReadonlyArray<Figure>> => {
      const lockOn = (index: number) => (name: string, onHeld: () => void) =>
        Effect.runPromise(withLock(index)(name, { lease: leaseMillis })(Effect.sync(onHeld)))
      const rivals = {
        [contended.semaphore]: () => async (name: string, onHeld: () => void) => {
          const mutex = new Mutex(client, name, { lockTimeout: leaseMillis, acquireTimeout: 60_000 })
          await mutex.acquire()
          onHeld()
          await mutex.release()
        },
        [contended.ours]: () => lockOn(0),
        [contended.apart]: (task: number) => lockOn(task % stores.length)
      }
      const found = new Map<string, Array<number>>(Object.keys(rivals).map((name) => [name, []]))
      for (let round = 0; round < 3; round++) {
        for (const [name, turnOf] of Object.entries(rivals)) {
          progress(`contended, round ${round + 1} of 3: ${name}`)
          found.get(name)?.push(await waits(turnOf))
        }
      }
      const of = (name: string): ReadonlyArray<number> => found.get(name) as ReadonlyArray<number>
      const against = (name: string): Spread =>
        spread(of(name).map((millis, round) => millis / of(contended.semaphore)[round]))
      return [
        ...Object.keys(rivals).map(
          (what): Figure => ({ what: `p99 of the wait: ${what}`, unit: "ms", measured: spread(of(what)) })
        ),
        ...[contended.ours, contended.apart].map(
          (what): Figure => ({
            what: `p99 of the wait: ${what}: against redis-semaphore's`,
            unit: "x",
            measured: against(what),
            target: { atMost: 0.5 }
          })
        )
      ]
    }
    try {
      return [...(await uncontended(1, 0.9)), ...(await uncontended(64, 1)), ...(await measuredWaits())]
    } finally {
      for (const { close } of stores) await close()
      await peers.redis.quit()
      await client.quit()
    }
  }
}
