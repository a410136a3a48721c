/**
 * The rules of the protocol: who is granted what, what supersedes what, what `complete` answers. Pure: no clock, no
 * randomness, no effect. The memory store runs them; for every other store they are the model it is compared with.
 */
export * from "./protocol/Claims.ts"
export * from "./protocol/KeyState.ts"
export * from "./protocol/MapKeyTable.ts"
export * from "./protocol/StreamState.ts"
