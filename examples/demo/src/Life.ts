/**
 * A consumer's life, which ends without a word. Dead, it can neither ask nor answer anything: whatever it was waiting
 * for, it waits for ever. Consumers that share the memory store live in one process, so this is as near to `kill -9` as
 * one can get without taking the others along.
 */
export class Life {
  readonly name: string
  /** The consumer groups that it has joined. */
  readonly groups: Array<string> = []
  private ended = false
  private readonly onEnd: Array<() => void> = []

  constructor(name: string) {
    this.name = name
  }

  get isOver(): boolean {
    return this.ended
  }

  /** What dies with it: its connections. */
  atEnd(act: () => void): void {
    if (this.ended) act()
    else this.onEnd.push(act)
  }

  end(): void {
    if (this.ended) return
    this.ended = true
    for (const act of this.onEnd) act()
  }

  /** The call's answer, if the consumer is alive to send the call and to take the answer. */
  async call<A>(send: () => A | Promise<A>): Promise<A> {
    if (this.ended) return new Promise<never>(() => {})
    const answer = await send()
    return this.ended ? new Promise<never>(() => {}) : answer
  }
}
