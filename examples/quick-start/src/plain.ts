import { makeTracker } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"

const charge = async (order: string) => `charged ${order}`

const tracker = await makeTracker({ store: MemoryStore.layer(), namespace: "billing" })

// At-least-once delivery: the second message is the first one again.
for (const order of ["order-4711", "order-4711", "order-4712"]) {
  const outcome = await tracker.once(order, () => charge(order))
  console.log(order, outcome._tag)
}

await tracker.close()
