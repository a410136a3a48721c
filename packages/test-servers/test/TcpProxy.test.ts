import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { Redis } from "ioredis"
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest"
import { startOwnRedis, startTcpProxy, type TcpProxy } from "../src/index.ts"
import { describeWithOwnRedis } from "../src/vitest.ts"
import { accepts } from "./remains.ts"

/** Answers each line with its number on the connection and what it said; `seen` has all lines that got through. */
const startCounter = async () => {
  const seen: Array<string> = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    let count = 0
    let rest = ""
    socket.setEncoding("utf8").on("error", () => {})
    socket.on("data", (text: string) => {
      const lines = (rest + text).split("\n")
      rest = lines.pop() as string
      for (const line of lines) {
        seen.push(line)
        socket.write(`${++count} ${line}\n`)
      }
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const stop = () => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, seen, stop }
}

/** A connection: what it received, and how it ended. */
const open = async (address: string) => {
  const [host, port] = address.split(":") as [string, string]
  const socket = connect({ host, port: Number(port) }).setEncoding("utf8")
  onTestFinished(() => void socket.destroy())
  const state: { received: string; ended: string | undefined } = { received: "", ended: undefined }
  socket.on("data", (text: string) => {
    state.received += text
  })
  socket.on("error", (error: NodeJS.ErrnoException) => {
    state.ended = error.code
  })
  socket.on("end", () => {
    state.ended = "end"
  })
  await once(socket, "connect")
  return {
    send: (line: string) => socket.write(`${line}\n`),
    end: () => socket.end(),
    received: () => state.received,
    ended: () => state.ended
  }
}

let counter: Awaited<ReturnType<typeof startCounter>>
let proxy: TcpProxy

beforeEach(async () => {
  counter = await startCounter()
  proxy = await startTcpProxy(counter.address)
})

afterEach(() => {
  proxy.stop()
  counter.stop()
})

describe("a proxy", () => {
  test("passes on everything in both directions, large amounts too", async () => {
    const client = await open(proxy.address)
    const lines = Array.from({ length: 2_000 }, (_, index) => `${index}${"x".repeat(2_000)}`)
    for (const line of lines) client.send(line)
    const expected = lines.map((line, index) => `${index + 1} ${line}\n`).join("")
    await expect.poll(() => client.received().length, { timeout: 10_000 }).toBe(expected.length)
    expect(client.received()).toBe(expected)
    client.end()
    await expect.poll(client.ended).toBe("end")
  })

  test("that is cut resets what is open and refuses what is new, until it is healed", async () => {
    const client = await open(proxy.address)
    proxy.cut()
    await expect.poll(client.ended).toBe("ECONNRESET")
    expect(await accepts(proxy.address)).toBe(false)
    await proxy.heal()
    const later = await open(proxy.address)
    later.send("a")
    await expect.poll(later.received).toBe("1 a\n")
  })

  test("that refuses leaves what is open alone", async () => {
    const client = await open(proxy.address)
    proxy.refuse()
    expect(await accepts(proxy.address)).toBe(false)
    client.send("a")
    await expect.poll(client.received).toBe("1 a\n")
    await proxy.heal()
    await proxy.heal()
    expect(await accepts(proxy.address)).toBe(true)
  })

  test("that is half-open accepts and passes nothing; healed, it delivers everything", async () => {
    const client = await open(proxy.address)
    client.send("a")
    await expect.poll(client.received).toBe("1 a\n")
    proxy.halfOpen()
    client.send("b")
    const another = await open(proxy.address)
    another.send("c")
    // What passes would pass within the time of a round trip beside it.
    const beside = await open(counter.address)
    beside.send("d")
    await expect.poll(beside.received).toBe("1 d\n")
    expect(counter.seen).toEqual(["a", "d"])
    await proxy.heal()
    await expect.poll(client.received).toBe("1 a\n2 b\n")
    await expect.poll(another.received).toBe("1 c\n")
  })

  test("delays both ways, and a shorter delay lets nothing overtake", async () => {
    const client = await open(proxy.address)
    proxy.delay(150)
    const sent = performance.now()
    client.send("a")
    await expect.poll(() => counter.seen, { interval: 5 }).toEqual(["a"])
    expect(performance.now() - sent).toBeGreaterThan(145)
    proxy.delay(0)
    client.send("b")
    await expect.poll(client.received, { interval: 5 }).toBe("1 a\n2 b\n")
    proxy.delay(150)
    client.send("c")
    await expect.poll(client.received, { interval: 5 }).toContain("3 c\n")
    expect(performance.now() - sent).toBeGreaterThan(145 + 295)
  })

  test("drops answers while requests get through, and resets what lost one when it is healed", async () => {
    const client = await open(proxy.address)
    const other = await open(proxy.address)
    proxy.dropAnswers()
    client.send("a")
    await expect.poll(() => counter.seen).toEqual(["a"])
    client.send("b")
    await expect.poll(() => counter.seen).toEqual(["a", "b"])
    expect([client.received(), client.ended()]).toEqual(["", undefined])
    await proxy.heal()
    await expect.poll(client.ended).toBe("ECONNRESET")
    other.send("c")
    await expect.poll(other.received).toBe("1 c\n")
    expect(client.received()).toBe("")
  })

  test("loses one answer to the request that is named", async () => {
    const client = await open(proxy.address)
    const lost = proxy.loseNextAnswer("order 7")
    client.send("order 6")
    await expect.poll(client.received).toBe("1 order 6\n")
    client.send("order 7")
    await lost
    await expect.poll(client.ended).toBe("ECONNRESET")
    expect(client.received()).toBe("1 order 6\n")
    expect(counter.seen).toEqual(["order 6", "order 7"])
    const again = await open(proxy.address)
    again.send("order 7")
    await expect.poll(again.received).toBe("1 order 7\n")
  })

  test("whose target is gone resets its clients", async () => {
    counter.stop()
    const client = await open(proxy.address)
    await expect.poll(client.ended).toBe("ECONNRESET")
  })

  test("that is stopped frees its port", async () => {
    proxy.stop()
    proxy.stop()
    expect(await accepts(proxy.address)).toBe(false)
  })
})

await describeWithOwnRedis("a proxy before Redis", () => {
  test("makes ioredis ask again what was done already", async () => {
    await using redis = await startOwnRedis()
    using network = await startTcpProxy(redis.address)
    const client = new Redis(`redis://${network.address}`).on("error", () => {})
    onTestFinished(() => client.disconnect())
    await client.ping()
    const lost = network.loseNextAnswer("incr")
    expect(await client.incr("orders")).toBe(2)
    await lost
  })
})

test("a network that is cut again while it heals does not wait for ever", async () => {
  using network = await startTcpProxy("127.0.0.1:1")
  network.cut()
  const first = network.heal()
  network.cut()
  const second = network.heal()
  await Promise.all([first, second])
  expect(await accepts(network.address)).toBe(true)
})
