import { existsSync } from "node:fs"
import { cp, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { brokerProperties, kafkaVersion, propertiesFile } from "./brokerProperties.ts"
import { exec, tail } from "./exec.ts"

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
): { readonly command: string; readonly args: ReadonlyArray<string> } => ({
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

const fetchJars = async (folder: string, jars: string): Promise<void> => {
  const project = join(folder, "pom.xml")
  await writeFile(project, pom)
  const plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
  const strictChecksums = "-C"
  const { succeeded, output } = await exec(
    "mvn",
    [
      "-B",
      "-q",
      strictChecksums,
      "-f",
      project,
      plugin,
      `-DoutputDirectory=${jars}`,
      "-DincludeScope=runtime"
    ],
    10 * 60_000
  )
  if (!succeeded) throw new FetchFailed(`Maven could not fetch Apache Kafka's jars: ${tail(output, 3)}`)
}

/** Formatting takes a JVM's start, so it is done once; the result holds neither ports nor paths. */
const format = async (folder: string, distribution: KafkaDistribution): Promise<void> => {
  const properties = brokerProperties({
    listen: "127.0.0.1:9092",
    controllerPort: 9093,
    advertise: "127.0.0.1:9092"
  })
  const file = join(folder, "format.properties")
  await writeFile(file, propertiesFile({ ...properties, "log.dirs": distribution.emptyData }))
  const clusterId = "dGlkZW1hcmstdGVzdHMtMQ"
  const { command, args } = javaCommand(distribution, "kafka.tools.StorageTool", [
    "format",
    "-t",
    clusterId,
    "-c",
    file
  ])
  const { succeeded, output } = await exec(command, args, 60_000)
  if (!succeeded) throw new Error(`Apache Kafka's storage could not be formatted: ${tail(output, 5)}`)
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
  const discard = () => rm(partial, { recursive: true, force: true })
  try {
    await fetchJars(partial, within(partial).jars)
    await format(partial, within(partial))
    await rename(partial, home)
  } catch (error) {
    await discard()
    if (!existsSync(home)) throw error
  }
  return within(home)
}

/** Copies the formatted, empty data folder to `folder`, for one broker. */
export const copyEmptyData = (distribution: KafkaDistribution, folder: string): Promise<void> =>
  cp(distribution.emptyData, folder, { recursive: true })
