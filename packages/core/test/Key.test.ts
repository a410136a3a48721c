import { InvalidInput, Key } from "@tidemark/core"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"

const part = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 20 })
  .filter((text) => text.isWellFormed())

describe("Key.stream", () => {
  it("keeps parts apart whatever they hold, and gives them back", () => {
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
        expect(Key.streamParts(Key.stream(...parts))).toEqual(parts)
      })
    )
    expect(Key.stream("a/b", "c")).not.toBe(Key.stream("a", "b/c"))
  })

  it.each([[[]], [[""]], [["a", ""]], [["\ud800"]], [["é".repeat(400)]]])("refuses %j", (parts) => {
    expect(() => Key.stream(...parts)).toThrow(InvalidInput)
  })

  it("names a partition as a group sees it, and a cluster where one is given", () => {
    expect(Key.kafkaStream({ group: "bill ing", topic: "orders", partition: 3 })).toBe(
      "kafka/bill%20ing/orders/3"
    )
    expect(Key.kafkaStream({ cluster: "eu", group: "g", topic: "t", partition: 0 })).toBe("kafka/g/t/0/eu")
  })
})

describe("Key.format", () => {
  it("reads well", () => {
    expect(Key.format(Key.offset("orders/0", 7))).toBe("orders/0@7")
    expect(Key.format(Key.id("x"))).toBe("x")
    expect(Key.format(Key.id("x", { namespace: "n" }))).toBe("n:x")
  })
})
