import CoreML
import Foundation

/// What was bundled: `Fixture/bundle.json`, with the artifacts, the golden inputs and the golden outputs beside it.
public struct Fixture: Decodable, Sendable {
    /// An array in a file: row-major, little-endian, the samples in axis 0.
    public struct Tensor: Decodable, Sendable {
        public let name: String
        public let dtype: String
        public let shape: [Int]
        public let file: String
    }

    public struct Artifact: Decodable, Sendable {
        public let id: String
        public let file: String
        public let sha256: String
        /// Signal to quantization noise that the outputs must keep against the golden ones, in dB.
        public let minSqnrDb: Double
        public let inputs: [Tensor]
        public let outputs: [Tensor]
    }

    public let schemaVersion: Int
    public let name: String
    public let samples: Int
    public let numRuns: Int
    public let warmupRuns: Int
    public let artifacts: [Artifact]

    static var folder: URL {
        get throws {
            guard let url = Bundle.module.url(forResource: "Fixture", withExtension: nil) else {
                throw BenchmarkError.missing("Fixture")
            }
            return url
        }
    }

    public static func load() throws -> Fixture {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let data = try Data(contentsOf: folder.appendingPathComponent("bundle.json"))
        return try decoder.decode(Fixture.self, from: data)
    }
}

extension Fixture.Tensor {
    /// Number of elements of one sample.
    var countOfSample: Int { shape.dropFirst().reduce(1, *) }

    private func data() throws -> Data {
        try Data(contentsOf: Fixture.folder.appendingPathComponent(file))
    }

    /// One sample as Core ML takes it, with a batch of one. Bytes are copied: a new array is contiguous.
    func feature(sample: Int) throws -> MLFeatureValue {
        let (type, size) = try elementType()
        let array = try MLMultiArray(shape: ([1] + shape.dropFirst()).map { NSNumber(value: $0) }, dataType: type)
        let bytes = try data()
        let start = sample * countOfSample * size
        guard start + countOfSample * size <= bytes.count else { throw BenchmarkError.missing(file) }
        array.withUnsafeMutableBytes { target, _ in
            _ = bytes.copyBytes(to: target, from: start..<(start + countOfSample * size))
        }
        return MLFeatureValue(multiArray: array)
    }

    private func elementType() throws -> (MLMultiArrayDataType, Int) {
        switch dtype {
        case "float16": return (.float16, 2)
        case "float32": return (.float32, 4)
        case "float64": return (.double, 8)
        case "int32": return (.int32, 4)
        default: throw BenchmarkError.missing("a Core ML type for \(dtype)")
        }
    }

    /// Every sample, for golden outputs, which are float32.
    func floats() throws -> [Float] {
        let bytes = try data()
        return bytes.withUnsafeBytes { raw in
            (0..<(bytes.count / 4)).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
        }
    }
}

public enum BenchmarkError: Error, CustomStringConvertible {
    case missing(String)
    case noMemoryFigure

    public var description: String {
        switch self {
        case .missing(let what): return "the bundle lacks \(what)"
        case .noMemoryFigure: return "the system does not tell how much memory this process holds"
        }
    }
}
