import CoreML
import Foundation

/// Compiles, loads and times every artifact of the bundle, and keeps what it computes.
public enum Benchmark {
    static let loads = 3

    /// Measure everything.
    ///
    /// - Parameters:
    ///   - fixture: What was bundled.
    ///   - units: Which choices of compute units to time; the first one gives the outputs and the plan.
    ///   - report: Told what is being done.
    public static func run(
        _ fixture: Fixture, units: [ComputeUnits], report: @Sendable (String) -> Void = { _ in }
    ) async throws -> Document {
        var document = Document(machine: Machine.facts(), conditions: Machine.conditions())
        for artifact in fixture.artifacts {
            report("\(artifact.id): compiling")
            document.measurements.append(await measure(artifact, fixture, units, report))
        }
        return document
    }

    static func measure(
        _ artifact: Fixture.Artifact, _ fixture: Fixture, _ units: [ComputeUnits], _ report: @Sendable (String) -> Void
    ) async -> Document.Measurement {
        var found = Document.Measurement(
            artifact: .init(name: artifact.id, sha256: artifact.sha256),
            runtime: .init(version: Machine.version),
            config: .init(numRuns: fixture.numRuns, warmupRuns: fixture.warmupRuns)
        )
        do {
            let start = DispatchTime.now()
            let compiled = try await compile(artifact)
            found.compileMs = milliseconds(since: start)
            defer { try? FileManager.default.removeItem(at: compiled) }
            for unit in units {
                report("\(artifact.id): \(unit.rawValue)")
                let (run, outputs) = measureOne(artifact, fixture, compiled, unit, wantsOutputs: found.outputs == nil)
                found.runs.append(run)
                found.outputs = found.outputs ?? outputs
            }
            if let unit = found.outputs?.computeUnits {
                found.plan = try await plan(compiled, unit)
            }
        } catch {
            found.notes.append(String(describing: error))
        }
        if !found.runs.contains(where: { $0.error == nil }) {
            let reason = found.runs.compactMap(\.error?.message).first ?? found.notes.joined(separator: "; ")
            found.error = .init(message: reason)
        }
        return found
    }

    static func compile(_ artifact: Fixture.Artifact) async throws -> URL {
        try await MLModel.compileModel(at: Fixture.folder.appendingPathComponent(artifact.file))
    }

    /// One choice of compute units. Not async, so that each run is a plain call with a clock around it.
    static func measureOne(
        _ artifact: Fixture.Artifact, _ fixture: Fixture, _ compiled: URL, _ unit: ComputeUnits, wantsOutputs: Bool
    ) -> (Document.Run, Document.Outputs?) {
        var run = Document.Run(computeUnits: unit)
        var outputs: Document.Outputs?
        do {
            let baseline = try Machine.footprint()
            var loaded: MLModel?
            for _ in 0..<loads {
                loaded = nil
                let start = DispatchTime.now()
                loaded = try MLModel(contentsOf: compiled, configuration: unit.configuration)
                run.loadMs.append(milliseconds(since: start))
            }
            guard let model = loaded else { throw BenchmarkError.missing(artifact.file) }
            let afterLoad = try Machine.footprint()
            let sample = try provider(artifact, sample: 0)
            run.firstMs = try timed { _ = try model.prediction(from: sample) }
            for _ in 0..<fixture.warmupRuns { _ = try model.prediction(from: sample) }
            var peak = max(afterLoad, try Machine.footprint())
            for _ in 0..<fixture.numRuns {
                try autoreleasepool {
                    run.samplesMs.append(try timed { _ = try model.prediction(from: sample) })
                    peak = max(peak, try Machine.footprint())
                }
            }
            run.memory = .init(baseline: baseline, afterLoad: max(afterLoad, baseline), peak: max(peak, baseline))
            if wantsOutputs {
                let values = try predict(model, artifact, fixture.samples)
                outputs = .init(computeUnits: unit, tensors: values.map(\.document))
            }
        } catch {
            run.error = .init(message: String(describing: error))
        }
        return (run, outputs)
    }

    /// Run every golden input; one array an output, the samples in axis 0.
    static func predict(_ model: MLModel, _ artifact: Fixture.Artifact, _ samples: Int) throws -> [Values] {
        var found = artifact.outputs.map { _ in Values() }
        for sample in 0..<samples {
            let answer = try model.prediction(from: provider(artifact, sample: sample))
            for (index, output) in artifact.outputs.enumerated() {
                guard let array = answer.featureValue(for: output.name)?.multiArrayValue else {
                    throw BenchmarkError.missing("the output \(output.name)")
                }
                found[index].append(MLShapedArray<Float>(converting: array))
            }
        }
        return found
    }

    static func provider(_ artifact: Fixture.Artifact, sample: Int) throws -> MLFeatureProvider {
        let pairs = try artifact.inputs.map { ($0.name, try $0.feature(sample: sample)) }
        return try MLDictionaryFeatureProvider(dictionary: Dictionary(uniqueKeysWithValues: pairs))
    }

    static func timed(_ work: () throws -> Void) rethrows -> Double {
        let start = DispatchTime.now()
        try work()
        return milliseconds(since: start)
    }

    static func milliseconds(since start: DispatchTime) -> Double {
        Double(DispatchTime.now().uptimeNanoseconds - start.uptimeNanoseconds) / 1_000_000
    }
}

/// Values of one output, as they are collected.
struct Values {
    private(set) var shape: [Int] = []
    private(set) var scalars: [Float] = []

    mutating func append(_ array: MLShapedArray<Float>) {
        let one = array.shape.isEmpty ? [1] : array.shape
        shape = [(shape.first ?? 0) + one[0]] + one.dropFirst()
        scalars += array.scalars
    }

    var document: Document.Tensor {
        .init(shape: shape, base64: scalars.withUnsafeBytes { Data($0) }.base64EncodedString())
    }

    /// Signal to noise against golden values in dB: infinite where they are equal, minus infinity where a value is no
    /// number.
    func sqnrDb(against golden: [Float]) -> Double {
        guard scalars.count == golden.count else { return -.infinity }
        var signal = 0.0
        var noise = 0.0
        for (value, expected) in zip(scalars, golden) where value != expected {
            noise += pow(Double(value) - Double(expected), 2)
        }
        for expected in golden { signal += pow(Double(expected), 2) }
        guard noise.isFinite else { return -.infinity }
        return noise == 0 ? .infinity : 10 * log10(signal / noise)
    }
}
