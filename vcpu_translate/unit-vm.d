vcpu_translate/unit-vm.o: grader/units/vm.c common/debug/entry_state.h \
  common/contract/vmm.h common/contract/abi.h common/contract/x86.h \
  common/contract/lab1.h common/contract/given.h grader/units/unit.h

common/debug/entry_state.h:

common/contract/vmm.h:

common/contract/abi.h:

common/contract/x86.h:

common/contract/lab1.h:

common/contract/given.h:

grader/units/unit.h:
