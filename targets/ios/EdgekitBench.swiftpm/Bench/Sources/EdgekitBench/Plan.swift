import CoreML
import Foundation

extension Benchmark {
    /// Ask Core ML where it would run each operation; nil before iOS 17.4 and macOS 14.4.
    static func plan(_ compiled: URL, _ unit: ComputeUnits) async throws -> Document.Plan? {
        guard #available(iOS 17.4, macOS 14.4, *) else { return nil }
        let plan = try await MLComputePlan.load(contentsOf: compiled, configuration: unit.configuration)
        guard case .program(let program) = plan.modelStructure,
            let function = program.functions["main"] ?? program.functions.values.first
        else { return nil }
        return .init(computeUnits: unit, operations: operations(of: function.block, plan))
    }

    @available(iOS 17.4, macOS 14.4, *)
    private static func operations(
        of block: MLModelStructure.Program.Block, _ plan: MLComputePlan
    ) -> [Document.Operation] {
        var found: [Document.Operation] = []
        for operation in block.operations {
            if let usage = plan.deviceUsage(for: operation) {  // constants have none
                found.append(
                    .init(
                        name: operation.outputs.first?.name ?? "",
                        type: operation.operatorName,
                        preferred: name(usage.preferred),
                        supported: usage.supported.map(name),
                        cost: plan.estimatedCost(of: operation)?.weight
                    )
                )
            }
            for inner in operation.blocks { found += operations(of: inner, plan) }
        }
        return found
    }

    @available(iOS 17.4, macOS 14.4, *)
    private static func name(_ device: MLComputeDevice) -> String {
        switch device {
        case .cpu: return "cpu"
        case .gpu: return "gpu"
        case .neuralEngine: return "neural_engine"
        @unknown default: return "cpu"
        }
    }
}
