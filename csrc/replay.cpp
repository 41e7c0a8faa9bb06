#include "replay.hpp"

namespace tilesmith {

Replayed replay(const Space &space, const Kernels &kernels, const Implementation &made) {
    Replayed values;
    const Walk &walk = made.walk;
    values.loads = kernels.inputs.size();
    values.looped = walk.loop ? free_parts(walk.loop, walk.loop_parts) : 0;
    values.outside = values.looped | (walk.split ? free_parts(walk.split, kInGrid) : 0);
    const auto add = [&](Class c, Phase phase) {
        values.classes.push_back(c);
        values.phases.push_back(phase);
        values.tiles.push_back(space.free(c) & ~values.outside);
    };
    for (const Tensor input : kernels.inputs) {
        const Class c = class_of(input);
        add(c, space.free(c) & values.looped ? Phase::varying : Phase::invariant);
    }
    const auto sum = [&](Class c, Free tile, Bases over) {
        for (; over; over &= over - 1) {
            const Base base = static_cast<Base>(__builtin_ctz(over));
            c = space.sum(c, base, parts_of(tile, base));
        }
        return c;
    };
    for (std::size_t i = 0; i < made.steps; ++i) {
        const Step &step = kernels.steps[made.first_step + i];
        const Class a = values.classes[step.a];
        const bool joins = step.b != Step::kNoOperand;
        const Class b = joins ? values.classes[step.b] : kNoClass;
        Phase phase = values.phases[step.a];
        if (joins && phase == Phase::invariant) phase = values.phases[step.b];
        Class result = kNoClass;
        switch (step.kind) {
        case StepKind::add: result = space.table().probe(Rule::add, a, b); break;
        case StepKind::sub: result = space.table().probe(Rule::sub, a, b); break;
        case StepKind::mul: result = space.table().probe(Rule::mul, a, b); break;
        case StepKind::div: result = space.table().probe(Rule::div, a, b); break;
        case StepKind::matmul:
            result = sum(space.table().probe(Rule::mul, a, b), values.tiles[step.a] | values.tiles[step.b],
                         space.sets()[step.arg]);
            break;
        case StepKind::apply: result = space.table().probe(Rule::apply, a, step.arg); break;
        case StepKind::sum: result = sum(a, values.tiles[step.a], space.sets()[step.arg]); break;
        case StepKind::accumulate:
        case StepKind::accumulate_sum:
            phase = Phase::after;
            result = space.sum(a, walk.loop, parts_of(space.free(a) & values.looped, walk.loop));
            if (step.kind == StepKind::accumulate_sum)
                result = sum(result, space.free(result) & ~values.outside, space.sets()[step.arg]);
            break;
        }
        add(result, phase);
    }
    return values;
}

} // namespace tilesmith
