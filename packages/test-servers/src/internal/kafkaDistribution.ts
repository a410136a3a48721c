import { existsSync } from "node:fs"
import { cp, mkdir, mkdtemp, readFile, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { brokerProperties, kafkaVersion, propertiesFile } from "./brokerProperties.ts"
import { exec, tail } from "./exec.ts"
import { type Program, type Supervisor, supervise } from "./Supervisor.ts"

const tools = fileURLToPath(new URL("../../../../.tools/", import.meta.url))
const home = join(tools, `kafka-${kafkaVersion}`)

/** Kafka's jars and a formatted, empty data folder. */
export interface KafkaDistribution {
  readonly jars: string
  readonly emptyData: string
}

export class FetchFailed extends Error {
  override readonly name = "FetchFailed"
}

const java = () => (process.env.JAVA_HOME ? join(process.env.JAVA_HOME, "bin", "java") : "java")

/** The command that runs Kafka's classes with a small heap; a test's broker holds a few megabytes at most. */
export const javaCommand = (
  distribution: KafkaDistribution,
  main: string,
  args: ReadonlyArray<string>
): Program => ({
  command: java(),
  args: [
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-cp",
    join(distribution.jars, "*"),
    main,
    ...args
  ]
})

/** The major version of the machine's Java, or `undefined` where there is none. */
export const javaVersion = async (): Promise<number | undefined> => {
  const { succeeded, output } = await exec(java(), ["-version"], 20_000)
  const version = succeeded ? /version "(\d+)/.exec(output)?.[1] : undefined
  return version === undefined ? undefined : Number(version)
}

/** slf4j-simple prints the broker's own errors, without which one that fails to start says nothing. */
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemark</groupId>
  <artifactId>kafka-distribution</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${kafkaVersion}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
`

/** Runs a program to its end, and rejects with the end of its output where it fails. */
const complete = async (supervisor: Supervisor, program: Program, log: string): Promise<void> => {
  const reason = await supervisor.runToEnd(program, log)
  if (reason !== "exit code 0") throw new Error(`${reason}: ${tail(await readFile(log, "utf8"), 3)}`)
}

const fetchJars = async (supervisor: Supervisor, folder: string, jars: string): Promise<void> => {
  const project = join(folder, "pom.xml")
  await writeFile(project, pom)
  const plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
  const strictChecksums = "-C"
  const options = ["-B", "-q", strictChecksums, "-f", project]
  const goal = [plugin, `-DoutputDirectory=${jars}`, "-DincludeScope=runtime"]
  try {
    const maven = { command: "mvn", args: [...options, ...goal] }
    await complete(supervisor, maven, join(folder, "maven.log"))
  } catch (error) {
    const reason = `Apache Kafka's jars could not be fetched with Maven: ${(error as Error).message}`
    throw new FetchFailed(reason, { cause: error })
  }
}

/** Formatting takes a JVM's start, so it is done once; the result holds neither ports nor paths. */
const format = async (
  supervisor: Supervisor,
  folder: string,
  distribution: KafkaDistribution
): Promise<void> => {
  const address = "127.0.0.1:9092"
  const properties = brokerProperties({ listen: address, controllerPort: 9093, advertise: address })
  const file = join(folder, "format.properties")
  await writeFile(file, propertiesFile({ ...properties, "log.dirs": distribution.emptyData }))
  const clusterId = "dGlkZW1hcmstdGVzdHMtMQ"
  const tool = javaCommand(distribution, "kafka.tools.StorageTool", ["format", "-t", clusterId, "-c", file])
  await complete(supervisor, tool, join(folder, "format.log"))
}

/**
 * Apache Kafka from `.tools/`, fetched there with Maven when it is missing. What is fetched is moved into place as
 * a whole, so an interrupted fetch, or two at once, never leave half a set. Rejects with `FetchFailed` where Maven
 * is missing or the jars are out of reach.
 */
export const kafkaDistribution = async (): Promise<KafkaDistribution> => {
  const within = (folder: string) => ({ jars: join(folder, "jars"), emptyData: join(folder, "empty-data") })
  if (existsSync(home)) return within(home)
  process.stderr.write(`Fetching Apache Kafka ${kafkaVersion} (44 MB, once) ...\n`)
  await mkdir(tools, { recursive: true })
  const partial = await mkdtemp(join(tools, `kafka-${kafkaVersion}-partial-`))
  const supervisor = await supervise({ folder: partial })
  try {
    await fetchJars(supervisor, partial, within(partial).jars)
    await format(supervisor, partial, within(partial))
    await rename(partial, home)
  } catch (error) {
    const otherFetchWasFirst = existsSync(home)
    if (!otherFetchWasFirst) throw error
  } finally {
    await supervisor.end()
  }
  return within(home)
}

/** Copies the formatted, empty data folder to `folder`, for one broker. */
export const copyEmptyData = (distribution: KafkaDistribution, folder: string): Promise<void> =>
  cp(distribution.emptyData, folder, { recursive: true })
