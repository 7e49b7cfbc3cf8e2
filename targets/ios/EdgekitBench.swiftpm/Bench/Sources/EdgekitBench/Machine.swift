import Darwin
import Foundation

/// What this device is, and in which state.
enum Machine {
    static func facts() -> [String: String] {
        let process = ProcessInfo.processInfo
        return [
            "model": sysctl("hw.machine"),
            "chip": sysctl("machdep.cpu.brand_string"),
            "system": "\(systemName) \(version)",
            "system_build": sysctl("kern.osversion"),
            "cores": String(process.processorCount),
            "memory": String(format: "%.1f GiB", Double(process.physicalMemory) / 1_073_741_824),
        ].filter { !$0.value.isEmpty }
    }

    static func conditions() -> [String: String] {
        [
            "thermal": thermalState,
            "low_power_mode": ProcessInfo.processInfo.isLowPowerModeEnabled ? "on" : "off",
        ]
    }

    static var version: String {
        let system = ProcessInfo.processInfo.operatingSystemVersion
        return "\(system.majorVersion).\(system.minorVersion).\(system.patchVersion)"
    }

    /// The memory that the system holds against this process.
    static func footprint() throws -> UInt64 {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size)
        let status = withUnsafeMutablePointer(to: &info) { pointer in
            pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) { integers in
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), integers, &count)
            }
        }
        guard status == KERN_SUCCESS else { throw BenchmarkError.noMemoryFigure }
        return info.phys_footprint
    }

    private static var systemName: String {
        #if os(iOS)
        return "iOS"
        #else
        return "macOS"
        #endif
    }

    private static var thermalState: String {
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious"
        case .critical: return "critical"
        @unknown default: return "unknown"
        }
    }

    private static func sysctl(_ name: String) -> String {
        var size = 0
        guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "" }
        var text = [CChar](repeating: 0, count: size)
        guard sysctlbyname(name, &text, &size, nil, 0) == 0 else { return "" }
        return String(cString: text)
    }
}
