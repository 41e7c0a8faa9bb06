#include "kernels.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace tilesmith {

const Kernels &Catalogue::kernels(std::span<const Tensor> inputs, std::uint64_t hash, bool last) {
    bool fresh = false;
    std::uint32_t &place = places_.at((hash << 1 | (last ? 1u : 0u)) & (FlatMap<std::uint32_t>::kEmpty >> 1), fresh);
    if (!fresh) {
        const Kernels &known = entries_[place];
        if (!std::ranges::equal(known.inputs, inputs)) throw std::logic_error("two sets of tensors have one hash");
        return known;
    }
    place = static_cast<std::uint32_t>(entries_.size());
    return entries_.emplace_back(search_.run(inputs, last ? Goal::last : Goal::between));
}

std::size_t Catalogue::tensors() const {
    std::set<Tensor> seen;
    for (const Kernels &kernels : entries_) {
        seen.insert(kernels.inputs.begin(), kernels.inputs.end());
        for (const Signature &signature : kernels.signatures)
            for (const Tensor output : signature.outputs)
                if (output != kNoTensor) seen.insert(output);
    }
    return seen.size();
}

std::vector<Tensor> program_inputs(const Space &space) {
    std::vector<Tensor> inputs;
    for (std::size_t i = 0; i < space.table().inputs.size(); ++i) {
        const Class c = space.table().inputs[i];
        if (c == kNoClass) continue;
        const bool oriented = space.options().shapes == Shapes::oriented;
        const Tensor made = tensor(c, oriented ? space.program().inputs[i].dims : 0);
        if (std::ranges::find(inputs, made) == inputs.end()) inputs.push_back(made);
    }
    return inputs;
}

void Listing::add(State &state, Tensor t, bool needs) {
    const auto owner = static_cast<std::uint8_t>(state.count);
    if (needs) state.needed |= Set{1} << state.count;
    for (const Class name : space_.names_of(class_of(t))) {
        const Tensor named = tensor(name, dims_of(t));
        if (has(state, named)) continue;
        if (state.count == kMostTensors) throw Overflow("more than 64 tensors stand between kernels");
        const auto place = static_cast<std::size_t>(state.count++);
        tensors_[place] = named;
        hashes_[place] = Catalogue::hash_of(named);
        owners_[place] = owner;
    }
}

Listing::Set Listing::owned(Set inputs) const {
    if (!space_.renamings()) return inputs;
    Set owners = 0;
    for (; inputs; inputs &= inputs - 1) owners |= Set{1} << owners_[static_cast<std::size_t>(__builtin_ctzll(inputs))];
    return owners;
}

bool Listing::has(const State &state, Tensor t) const {
    return std::find(tensors_.begin(), tensors_.begin() + state.count, t) != tensors_.begin() + state.count;
}

Listing::Listing(const Space &space, const KernelLimits &limits, Control &control)
    : space_(space), limits_(limits), control_(control), catalogue_(space, limits.block, control) {}

void Listing::run(const Visit &visit) {
    visit_ = &visit;
    State state;
    for (const Tensor input : program_inputs(space_)) add(state, input, false);
    state.targets_left = static_cast<int>(space_.table().outputs.size());

    std::size_t names = 1;
    for (std::size_t c = 0; c < space_.classes(); ++c) names = std::max(names, space_.names_of(static_cast<Class>(c)).size());
    const int most = std::min(kMostTensors, state.count + kMaxStores * static_cast<int>(names) * (limits_.kernels - 1));
    const auto extend = [&](const auto &self, Set set, int from, int size) -> void {
        if (set) subsets_.push_back(set);
        for (int i = from; i < most && size < limits_.inputs; ++i) self(self, set | Set{1} << i, i + 1, size + 1);
    };
    subsets_.clear();
    extend(extend, 0, 0, 0);
    std::ranges::sort(subsets_);
    expand(state);
}

const Kernels &Listing::kernels(Set inputs, bool last) {
    std::array<Tensor, kMostTensors> tensors;
    std::size_t count = 0;
    std::uint64_t hash = 0;
    for (; inputs; inputs &= inputs - 1) {
        const auto place = static_cast<std::size_t>(__builtin_ctzll(inputs));
        tensors[count++] = tensors_[place];
        hash += hashes_[place];
    }
    std::sort(tensors.begin(), tensors.begin() + count);
    return catalogue_.kernels({tensors.data(), count}, hash, last);
}

// Kernels that end a program: they use everything that is needed and make every target that is left.
void Listing::finish(const State &state, Set inputs) {
    const Kernels &found = kernels(inputs, true);
    for (std::uint32_t s = 0; s < found.signatures.size(); ++s) {
        int made = 0;
        bool again = false;
        for (const Tensor output : found.signatures[s].outputs) {
            made += output != kNoTensor;
            again |= output != kNoTensor && has(state, output);
        }
        if (made != state.targets_left || again) continue;
        plan_.push_back({&found, s});
        (*visit_)(plan_);
        plan_.pop_back();
    }
}

void Listing::expand(const State &state) {
    // Where every block search is known nobody else looks at the clock.
    if ((++nodes_ & 1023) == 0) control_.poll();
    const int left = limits_.kernels - static_cast<int>(plan_.size());
    const Set all = state.count == kMostTensors ? ~Set{0} : (Set{1} << state.count) - 1;
    if (left == 1 && !space_.renamings()) {
        // Only sets that hold all that is needed.
        const auto extend = [&](const auto &self, Set inputs, Set others, int more) -> void {
            if (inputs && inputs >= state.last_inputs) finish(state, inputs);
            for (; others && more && !control_.stopped(); others &= others - 1)
                self(self, inputs | (others & -others), others & (others - 1), more - 1);
        };
        extend(extend, state.needed, all & ~state.needed, limits_.inputs - __builtin_popcountll(state.needed));
        return;
    }
    for (auto at = std::ranges::lower_bound(subsets_, state.last_inputs); at != subsets_.end() && *at <= all; ++at) {
        const Set inputs = *at, owners = owned(inputs);
        const bool uses_all = (owners & state.needed) == state.needed;
        if (control_.stopped()) return;
        if (uses_all) finish(state, inputs);
        if (left == 1) continue;
        const Kernels &found = kernels(inputs, false);
        for (std::uint32_t s = 0; s < found.signatures.size(); ++s) {
            if (inputs == state.last_inputs && s <= state.last_signature) continue;
            const auto &outputs = found.signatures[s].outputs;
            if (has(state, outputs[0]) || (outputs[1] != kNoTensor && has(state, outputs[1]))) continue;
            State next = state;
            next.needed &= ~owners;
            for (const Tensor output : outputs) {
                if (output == kNoTensor) continue;
                const bool target = space_.target(class_of(output));
                next.targets_left -= target;
                add(next, output, !target);
            }
            next.last_inputs = inputs;
            next.last_signature = s;
            // Each kernel that is left takes so many of what is needed, and all but the last add one.
            if (__builtin_popcountll(next.needed) > (left - 1) * (limits_.inputs - 1) + 1) continue;
            plan_.push_back({&found, s});
            expand(next);
            plan_.pop_back();
        }
    }
}

} // namespace tilesmith
