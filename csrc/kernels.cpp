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

void Listing::add(Pool &pool, Tensor t, bool needs) const {
    const auto owner = static_cast<std::uint8_t>(pool.count);
    if (needs) pool.needed |= 1u << pool.count;
    for (const Class name : space_.names_of(class_of(t))) {
        const Tensor named = tensor(name, dims_of(t));
        if (pool.has(named)) continue;
        const auto place = static_cast<std::size_t>(pool.count);
        if (place == pool.tensors.size()) throw std::invalid_argument("a program has more than 32 tensors at the kernel level");
        pool.tensors[place] = named;
        pool.hashes[place] = Catalogue::hash_of(named);
        pool.owners[place] = owner;
        ++pool.count;
    }
}

std::uint32_t Listing::owned(const Pool &pool, std::uint32_t inputs) {
    std::uint32_t owners = 0;
    for (; inputs; inputs &= inputs - 1) owners |= 1u << pool.owners[static_cast<std::size_t>(__builtin_ctz(inputs))];
    return owners;
}

bool Listing::Pool::has(Tensor t) const {
    return std::find(tensors.begin(), tensors.begin() + count, t) != tensors.begin() + count;
}

Listing::Listing(const Space &space, const KernelLimits &limits, Control &control)
    : space_(space), limits_(limits), control_(control), catalogue_(space, limits.block, control) {}

void Listing::run(const Visit &visit) {
    visit_ = &visit;
    Pool pool;
    for (const Tensor input : program_inputs(space_)) add(pool, input, false);
    pool.targets_left = static_cast<int>(space_.table().outputs.size());

    std::size_t names = 1;
    for (std::size_t c = 0; c < space_.classes(); ++c) names = std::max(names, space_.names_of(static_cast<Class>(c)).size());
    const int most = std::min(32, pool.count + kMaxStores * static_cast<int>(names) * (limits_.kernels - 1));
    const auto extend = [&](const auto &self, std::uint32_t set, int from, int size) -> void {
        if (set) subsets_.push_back(set);
        for (int i = from; i < most && size < limits_.inputs; ++i) self(self, set | 1u << i, i + 1, size + 1);
    };
    subsets_.clear();
    extend(extend, 0, 0, 0);
    std::ranges::sort(subsets_);
    expand(pool);
}

const Kernels &Listing::kernels(const Pool &pool, std::uint32_t inputs, bool last) {
    std::array<Tensor, 32> tensors;
    std::size_t count = 0;
    std::uint64_t hash = 0;
    for (; inputs; inputs &= inputs - 1) {
        const auto place = static_cast<std::size_t>(__builtin_ctz(inputs));
        tensors[count++] = pool.tensors[place];
        hash += pool.hashes[place];
    }
    std::sort(tensors.begin(), tensors.begin() + count);
    return catalogue_.kernels({tensors.data(), count}, hash, last);
}

void Listing::expand(const Pool &pool) {
    ++nodes_;
    const int left = limits_.kernels - static_cast<int>(plan_.size());
    const std::uint32_t end = pool.count == 32 ? ~0u : (1u << pool.count) - 1;
    for (auto at = std::ranges::lower_bound(subsets_, pool.last_inputs); at != subsets_.end() && *at <= end; ++at) {
        const std::uint32_t inputs = *at;
        const std::uint32_t owners = space_.renamings() ? owned(pool, inputs) : inputs;
        const bool uses_all = (owners & pool.needed) == pool.needed;
        if (left == 1 && !uses_all) continue;
        if (control_.stopped()) return;
        if (uses_all) {
            const Kernels &found = kernels(pool, inputs, true);
            for (std::uint32_t s = 0; s < found.signatures.size(); ++s) {
                int made = 0;
                bool again = false;
                for (const Tensor output : found.signatures[s].outputs) {
                    made += output != kNoTensor;
                    again |= output != kNoTensor && pool.has(output);
                }
                if (made != pool.targets_left || again) continue;
                plan_.push_back({&found, s});
                (*visit_)(plan_);
                plan_.pop_back();
            }
        }
        if (left == 1) continue;
        const Kernels &found = kernels(pool, inputs, false);
        for (std::uint32_t s = 0; s < found.signatures.size(); ++s) {
            if (inputs == pool.last_inputs && s <= pool.last_signature) continue;
            const auto &outputs = found.signatures[s].outputs;
            if (pool.has(outputs[0]) || (outputs[1] != kNoTensor && pool.has(outputs[1]))) continue;
            Pool next = pool;
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
            if (__builtin_popcount(next.needed) > (left - 1) * (limits_.inputs - 1) + 1) continue;
            plan_.push_back({&found, s});
            expand(next);
            plan_.pop_back();
        }
    }
}

} // namespace tilesmith
