/** Consumers of one group, each in a process of its own, which can be stopped, killed and frozen. */
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Instructions, Telling } from "./internal/consumerProgram.ts"
import type { Death } from "./verdict.ts"

const program = fileURLToPath(new URL("./internal/consumerProgram.ts", import.meta.url))

const nothingYet: Telling = {
  rebalances: 0,
  leaseLosses: 0,
  processed: 0,
  owned: 0,
  unfinished: 0,
  refused: 0
}

export class Member {
  readonly name: string
  /** What it told last. */
  told: Telling = nothingYet
  /** How it ended; `undefined` while it lives. */
  ended: string | undefined
  private readonly child: ChildProcess
  private readonly gone: Promise<void>
  private complaints = ""

  constructor(instructions: Instructions) {
    this.name = instructions.member
    this.child = fork(program, [], {
      execArgv: [
        "--conditions=@tidemark/source",
        "--disable-warning=ExperimentalWarning",
        "--disable-warning=TimeoutNegativeWarning"
      ],
      stdio: ["ignore", "ignore", "pipe", "ipc"]
    })
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.complaints = (this.complaints + text).slice(-4_000)
    })
    this.child.on("message", (told: Telling) => {
      this.told = told
    })
    this.gone = new Promise((resolve) => {
      this.child.once("close", (code, signal) => {
        this.ended = signal ?? (code === 0 ? "well" : `with exit code ${code}: ${this.complaints.trim()}`)
        resolve()
      })
    })
    this.child.send(instructions, () => {
      // what can't be sent has ended, and says so by its end
    })
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  /** Asks it to stop, and answers in how many milliseconds it had. */
  async stop(): Promise<number> {
    const from = performance.now()
    this.signal("SIGTERM")
    await this.gone
    return performance.now() - from
  }

  async kill(): Promise<void> {
    this.signal("SIGKILL")
    await this.gone
  }
}

export class Crew {
  readonly living = new Set<Member>()
  readonly deaths: Array<Death> = []
  /** How long those took that were asked to stop, in milliseconds. */
  readonly stops: Array<number> = []
  /** All that ended by themselves, and how. */
  readonly failures: Array<string> = []
  private readonly instructions: Omit<Instructions, "member">
  private readonly gone: Array<Member> = []
  private count = 0

  constructor(instructions: Omit<Instructions, "member">) {
    this.instructions = instructions
  }

  start(): Member {
    const member = new Member({ ...this.instructions, member: `member-${++this.count}` })
    this.living.add(member)
    return member
  }

  async stop(member: Member): Promise<void> {
    this.leave(member)
    this.stops.push(await member.stop())
    // one that had not begun yet knows nothing of signals
    const hadBegun = member.told !== nothingYet
    if (member.ended !== "well" && (hadBegun || member.ended !== "SIGTERM"))
      this.failures.push(`${member.name} ended ${member.ended}`)
  }

  async kill(member: Member): Promise<void> {
    this.leave(member)
    await member.kill()
    this.noteDeath(member)
  }

  /** What it had done and not marked by now may come again. */
  noteDeath({ name }: Member): void {
    this.deaths.push({ member: name, at: Date.now() })
  }

  async end(): Promise<void> {
    const all = [...this.living]
    this.living.clear()
    await Promise.all(all.map((member) => member.kill()))
  }

  /** Of the member that saw most of them. */
  get rebalances(): number {
    return Math.max(0, ...[...this.gone, ...this.living].map(({ told }) => told.rebalances))
  }

  get owned(): number {
    return [...this.living].reduce((sum, { told }) => sum + told.owned, 0)
  }

  get refused(): number {
    return [...this.gone, ...this.living].reduce((sum, { told }) => sum + told.refused, 0)
  }

  /** Throws where one has ended by itself. */
  check(): void {
    for (const member of this.living) {
      if (member.ended === undefined) continue
      this.living.delete(member)
      throw new Error(`${member.name} ended by itself, ${member.ended}`)
    }
  }

  private leave(member: Member): void {
    this.living.delete(member)
    this.gone.push(member)
  }
}
