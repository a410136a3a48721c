import type { KeyClaimRef } from "../IdempotencyStore.ts"
import type { Key } from "../Key.ts"
import type { OffsetClaimRef } from "../OffsetStore.ts"
import type { HandlerClaim } from "../Tracker.ts"
import type { KeyGroup } from "./keyGroup.ts"

/** What a handler is given, and what it tells about it. */
export class GrantedKey implements HandlerClaim {
  readonly key: Key
  readonly claimId: string
  readonly token: number | undefined
  /** The key was completed under this claim: there is nothing left to complete, and nothing to lose. */
  isCompleted = false
  private readonly group: KeyGroup

  constructor(key: Key, claimId: string, token: number | undefined, group: KeyGroup) {
    this.key = key
    this.claimId = claimId
    this.token = token
    this.group = group
  }

  get ref(): OffsetClaimRef | KeyClaimRef {
    return this.group.refOf(this.claimId)
  }

  /** Made when it is asked for, which is seldom; works apart from the claim too. */
  get noteCompleted(): () => void {
    return () => {
      this.isCompleted = true
    }
  }
}
