"""Which unit of a chip takes which operation of an ML program: predicted from published rules, or asked of Core ML.

Core ML decides on the device which of CPU, GPU and Neural Engine executes an operation, and says so through
``MLComputePlan``, on Apple's systems only. Elsewhere this package predicts it.

================ ==================================================================================================
file             what it does
================ ==================================================================================================
``rules.yaml``   what each unit refuses, and what the units cost: data, every entry with its source
``rules.py``     reads and checks that file
``conditions.py`` what a rule may ask of an operation
``facts.py``     what there is to know of each operation of a package
``planner.py``   which of the units that can take an operation is expected to, and what follows: segments, transfers
``predict.py``   a package -> ``Placement`` of kind ``predicted``
``plan.py``      ``MLComputePlan`` on macOS -> ``Placement`` of kind ``measured`` (written, not run: no Mac here)
================ ==================================================================================================

A prediction is no more than its rules. Apple publishes few; most are findings of people who asked ``MLComputePlan`` or
the compiler on some chips. What no rule refuses is taken to run, so the Neural Engine's share is rather an upper bound.
"""
