import type { KeyClaimRef } from "../IdempotencyStore.ts"
import type { Key } from "../Key.ts"
import type { OffsetClaimRef } from "../OffsetStore.ts"
import type { HandlerClaim } from "../Tracker.ts"
import type { KeyGroup } from "./keyGroup.ts"

/**
 * What handlers have completed themselves under their claim, by its position: there is nothing left to complete, and
 * nothing to lose. Most often none has.
 */
export class DoneByHandlers {
  private positions: Set<number> | undefined = undefined

  get size(): number {
    return this.positions === undefined ? 0 : this.positions.size
  }

  has(position: number): boolean {
    return this.positions?.has(position) === true
  }

  add(position: number): void {
    this.positions ??= new Set()
    this.positions.add(position)
  }
}

/** What a handler is given, and what it tells about it. */
export class GrantedKey implements HandlerClaim {
  readonly key: Key
  readonly claimId: string
  readonly token: number | undefined
  private readonly group: KeyGroup
  private readonly done: DoneByHandlers
  private readonly position: number

  constructor(
    key: Key,
    claimId: string,
    token: number | undefined,
    group: KeyGroup,
    done: DoneByHandlers,
    position: number
  ) {
    this.key = key
    this.claimId = claimId
    this.token = token
    this.group = group
    this.done = done
    this.position = position
  }

  get ref(): OffsetClaimRef | KeyClaimRef {
    return this.group.refOf(this.claimId)
  }

  /** Made when it is asked for, which is seldom; works apart from the claim too. */
  get noteCompleted(): () => void {
    return () => this.done.add(this.position)
  }
}
