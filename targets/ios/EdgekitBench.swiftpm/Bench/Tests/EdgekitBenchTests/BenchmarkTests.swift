import CoreML
import XCTest

@testable import EdgekitBench

final class BenchmarkTests: XCTestCase {
    /// Every artifact computes what it computed when it was bundled, on every choice of compute units.
    func testOutputsAreGolden() async throws {
        let fixture = try Fixture.load()
        for artifact in fixture.artifacts {
            let compiled = try await Benchmark.compile(artifact)
            for unit in ComputeUnits.allCases {
                let model = try MLModel(contentsOf: compiled, configuration: unit.configuration)
                let found = try Benchmark.predict(model, artifact, fixture.samples)
                for (values, golden) in zip(found, artifact.outputs) {
                    let place = "\(artifact.id), \(unit.rawValue), output \(golden.name)"
                    XCTAssertGreaterThanOrEqual(values.sqnrDb(against: try golden.floats()), artifact.minSqnrDb, place)
                }
            }
        }
    }

    /// Latency of the first artifact as XCTest measures it, with every unit allowed.
    func testLatency() async throws {
        let fixture = try Fixture.load()
        let artifact = try XCTUnwrap(fixture.artifacts.first)
        let compiled = try await Benchmark.compile(artifact)
        let model = try MLModel(contentsOf: compiled, configuration: ComputeUnits.all.configuration)
        let sample = try Benchmark.provider(artifact, sample: 0)
        try measureSynchronously(model, sample, fixture.numRuns)
    }

    private func measureSynchronously(_ model: MLModel, _ sample: MLFeatureProvider, _ runs: Int) throws {
        _ = try model.prediction(from: sample)
        measure(metrics: [XCTClockMetric(), XCTMemoryMetric()]) {
            for _ in 0..<runs {
                XCTAssertNoThrow(try model.prediction(from: sample))
            }
        }
    }

    /// The document holds a timed run of every artifact; its path is printed, to be read by `edgekit profile --import`.
    func testDocumentIsWritten() async throws {
        let document = try await Benchmark.run(Fixture.load(), units: ComputeUnits.allCases)
        XCTAssertFalse(document.measurements.isEmpty)
        for measurement in document.measurements {
            XCTAssertNil(measurement.error, measurement.artifact.name)
        }
        let place = FileManager.default.temporaryDirectory.appendingPathComponent("edgekit-result.json")
        try document.json().write(to: place)
        print("edgekit result: \(place.path)")
    }
}
