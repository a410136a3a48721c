/** Processes of a pipe under load, and a `read_committed` reader that counts what comes out. */
import { type ChildProcess, spawn } from "node:child_process"
import { KafkaClient, type KafkaError, KafkaJs, type KafkaPipe, type KafkaRecord } from "@tidemark/kafka"
import { uniqueName } from "@tidemark/test-servers"
import { Effect, type Scope } from "effect"
import { messages } from "./consumers.ts"
import type { Orders } from "./programs/pipe.ts"

const program = new URL("./programs/pipe.ts", import.meta.url).pathname
const home = new URL("..", import.meta.url).pathname

/** What a process has told of itself last. */
interface Told {
  readonly counters: KafkaPipe.Counters
  readonly partitions: number
}

/** A process of the pipe. */
export interface PipeProcess {
  readonly told: () => Told | undefined
  /** Whether that has happened which it was started with. */
  readonly isBefallen: () => boolean
  readonly hasEnded: () => boolean
  readonly signal: (signal: NodeJS.Signals) => void
  readonly errors: () => string
}

/** The topics, the reader, and how to start a process. */
export interface PipeBed {
  readonly start: (fate?: Pick<Orders, "atCommit" | "when" | "signal">) => PipeProcess
  /** Produces so many numbered records more; gives how many that makes in all. */
  readonly produce: (count: number) => Effect.Effect<number, KafkaError>
  readonly output: Output
  /** All that were started, the ended ones too. */
  readonly processes: ReadonlyArray<PipeProcess>
}

/** What a `read_committed` reader has seen. */
export class Output {
  readonly times = new Map<string, number>()
  /** Records that came behind a later one of their key. */
  readonly disordered: Array<string> = []
  private readonly last = new Map<string, number>()

  note({ key, value }: KafkaRecord): void {
    const name = String(value)
    this.times.set(name, (this.times.get(name) ?? 0) + 1)
    const [number, index] = name.split(".").map(Number)
    const place = (number as number) * 3 + (index as number)
    const lane = String(key)
    if (place < (this.last.get(lane) ?? -1)) this.disordered.push(name)
    this.last.set(lane, place)
  }

  get twice(): ReadonlyArray<string> {
    return [...this.times].filter(([, times]) => times > 1).map(([name]) => name)
  }

  /** Of the first `count` records, what should have come out and has not. */
  missing(count: number): ReadonlyArray<string> {
    const missing: Array<string> = []
    for (let number = 0; number < count; number++)
      for (let index = 0; index < number % 3; index++)
        if (!this.times.has(`${number}.${index}`)) missing.push(`${number}.${index}`)
    return missing
  }
}

const read = Effect.fnUntraced(function* (topic: string, output: Output) {
  const client = yield* KafkaClient
  const positions = new Map<number, number>()
  const joined = Promise.withResolvers<void>()
  const member = yield* client.join({
    groupId: uniqueName("readers"),
    topics: [topic],
    sessionTimeoutMillis: 30_000,
    rebalanceTimeoutMillis: 30_000,
    heartbeatIntervalMillis: 1_000,
    maxWaitMillis: 100,
    events: {
      onAssignment: ({ partitions }) => {
        void joined.promise.then(() => {
          for (const place of partitions) member.seek(place, positions.get(place.partition) ?? 0)
          member.resume(partitions)
        })
      },
      onBatch: ({ nextOffset, partition, records }) => {
        const from = positions.get(partition) ?? 0
        for (const record of records) if (record.offset >= from) output.note(record)
        positions.set(partition, Math.max(from, nextOffset))
      },
      onHeartbeat: () => {},
      onEnd: () => {}
    }
  })
  joined.resolve()
})

const startProcess = (orders: Orders): { readonly child: ChildProcess; readonly process: PipeProcess } => {
  const child = spawn(process.execPath, ["--conditions=@tidemark/source", program, JSON.stringify(orders)], {
    cwd: home,
    stdio: ["ignore", "pipe", "pipe"]
  })
  let told: Told | undefined
  let isBefallen = false
  let rest = ""
  let errors = ""
  child.stdout?.on("data", (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split("\n")
    rest = lines.pop() as string
    for (const line of lines) {
      if (!line.startsWith("{")) continue
      const message = JSON.parse(line) as Told | { readonly befallen: true }
      if ("befallen" in message) isBefallen = true
      else told = message
    }
  })
  child.stderr?.on("data", (chunk: Buffer) => {
    errors += chunk.toString()
  })
  return {
    child,
    process: {
      told: () => told,
      isBefallen: () => isBefallen,
      hasEnded: () => child.exitCode !== null || child.signalCode !== null,
      signal: (signal) => void child.kill(signal),
      errors: () => errors
    }
  }
}

/** Topics of its own and a reader; the processes are killed with the Scope. */
export const pipeBed = Effect.fnUntraced(function* (
  brokers: ReadonlyArray<string>,
  partitions: number
): Effect.fn.Return<PipeBed, KafkaError, KafkaClient | Scope.Scope> {
  const client = yield* KafkaClient
  const [from, to, groupId] = ["orders", "invoices", "pipe"].map(uniqueName) as [string, string, string]
  yield* client.createTopics([
    { topic: from, partitions },
    { topic: to, partitions }
  ])
  const output = new Output()
  yield* read(to, output)
  const children: Array<ChildProcess> = []
  const processes: Array<PipeProcess> = []
  yield* Effect.addFinalizer(() => Effect.sync(() => children.forEach((child) => void child.kill("SIGKILL"))))
  let produced = 0
  return {
    output,
    processes,
    produce: (count) =>
      Effect.suspend(() => {
        const batch = messages(from, count, produced)
        produced += count
        return Effect.as(client.produce(batch), produced)
      }),
    start: (fate = {}) => {
      const started = startProcess({ brokers, from, to, groupId, ...fate })
      children.push(started.child)
      processes.push(started.process)
      return started.process
    }
  }
})

/** A client for the reader and the producer. */
export const clientFor = (brokers: ReadonlyArray<string>) => KafkaJs.layer({ brokers, logLevel: "nothing" })
