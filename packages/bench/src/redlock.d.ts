/** The package has types that its `exports` don't lead to: what the benchmark uses of them. */
declare module "redlock" {
  interface HeldLock {
    release(): Promise<unknown>
  }
  export default class Redlock {
    constructor(clients: Iterable<unknown>, settings?: { readonly retryCount?: number })
    acquire(resources: Array<string>, durationMillis: number): Promise<HeldLock>
  }
}
