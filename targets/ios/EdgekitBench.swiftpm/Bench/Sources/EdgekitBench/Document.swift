import CoreML
import Foundation

/// The result, as `edgekit profile --import` reads it. Keys are written in snake case; nil is left out.
public struct Document: Encodable, Sendable {
    public struct Tool: Encodable, Sendable {
        var name = "EdgekitBench"
        var version = "1"
    }

    public struct Problem: Encodable, Sendable {
        var code = "runtime_failed"
        let message: String
    }

    public struct Artifact: Encodable, Sendable {
        let name: String
        var format = "coreml"
        let sha256: String
    }

    public struct Runtime: Encodable, Sendable {
        var name = "Core ML"
        let version: String
        var delegates: [String] = []
    }

    public struct Config: Encodable, Sendable {
        let numRuns: Int
        let warmupRuns: Int
        var numThreads = 1
    }

    public struct Memory: Encodable, Sendable {
        let baseline: UInt64
        let afterLoad: UInt64
        let peak: UInt64
        var method = "phys_footprint, read between runs"
    }

    public struct Run: Encodable, Sendable {
        let computeUnits: ComputeUnits
        var loadMs: [Double] = []
        var firstMs: Double?
        var samplesMs: [Double] = []
        var memory: Memory?
        var error: Problem?

        var median: Double? {
            samplesMs.isEmpty ? nil : samplesMs.sorted()[samplesMs.count / 2]
        }
    }

    public struct Tensor: Encodable, Sendable {
        var shape: [Int]
        var dtype = "float32"
        var base64: String
    }

    public struct Outputs: Encodable, Sendable {
        let computeUnits: ComputeUnits
        let tensors: [Tensor]
    }

    public struct Operation: Encodable, Sendable {
        let name: String
        let type: String
        let preferred: String
        let supported: [String]
        let cost: Double?
    }

    public struct Plan: Encodable, Sendable {
        let computeUnits: ComputeUnits
        let operations: [Operation]
    }

    public struct Measurement: Encodable, Sendable {
        let artifact: Artifact
        let runtime: Runtime
        let config: Config
        var compileMs: Double?
        var runs: [Run] = []
        var outputs: Outputs?
        var plan: Plan?
        var notes: [String] = []
        var error: Problem?
    }

    var schemaVersion = 1
    var kind = "edgekit-measurement"
    var tool = Tool()
    let machine: [String: String]
    let conditions: [String: String]
    public internal(set) var measurements: [Measurement] = []

    /// The document as JSON.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(self)
    }
}

/// Which units Core ML may use.
public enum ComputeUnits: String, CaseIterable, Codable, Identifiable, Sendable {
    case all
    case cpuAndNeuralEngine
    case cpuAndGPU
    case cpuOnly

    public var id: String { rawValue }

    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .cpuAndNeuralEngine: return .cpuAndNeuralEngine
        case .cpuAndGPU: return .cpuAndGPU
        case .cpuOnly: return .cpuOnly
        }
    }

    var configuration: MLModelConfiguration {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = coreML
        return configuration
    }
}
