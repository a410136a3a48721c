import { expect, test } from "vitest"
import { describeWithRedisCluster } from "../../src/vitest.ts"

await describeWithRedisCluster("what needs a Redis Cluster", () => {
  test("would pass", () => expect(true).toBe(true))
})
